import pytest

from studies.addresses import tracking_address
from studies.errors import UserError

NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_an_address_is_shown_without_its_password() -> None:
    address = tracking_address("https://ann:s%40cret@[::1]:5000/mlflow/")
    assert address.shown == "https://[::1]:5000/mlflow"
    assert (address.user, address.password) == ("ann", "s@cret")
    assert "cret" not in repr(address)
    assert dict(address.credentials) == {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s@cret"}


def test_credentials_of_the_environment_fill_what_the_address_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in zip(NAMES, ("bob", "other", "tok"), strict=True):
        monkeypatch.setenv(name, text)
    assert dict(tracking_address("http://127.0.0.1:5000").credentials) == dict(
        zip(NAMES, ("bob", "other", "tok"), strict=True)
    )
    assert tracking_address("http://ann:own@127.0.0.1:5000").password == "own"


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///s3cret.db",
        "file:///tmp",
        "127.0.0.1:5000",
        "http://",
        "databricks",
        "http://[s3cret",
        "http:///s3cret",
        "http://ann:s3cret/x@host",
        "http://ann:12#s3cret@host",
        "http://ann:99999@h:99999/s3cret",
    ],
)
def test_what_is_no_address_is_refused_and_nothing_of_it_repeated(uri: str) -> None:
    with pytest.raises(UserError, match="must begin with http") as caught:
        tracking_address(uri)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "0", "0x0", "0.0", "000.0.0.0", "[0:0::0]", "[::ffff:0.0.0.0]"])
def test_a_server_on_all_interfaces_must_ask_for_a_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="must not listen on all interfaces"):
        tracking_address(f"http://{host}:5000")
    assert tracking_address(f"http://ann:s3cret@{host}:5000").user == "ann"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok")
    assert tracking_address(f"http://{host}:5000").token == "tok"


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("a.b", False),
    ],
)
def test_an_address_of_this_machine_is_known_by_its_host(host: str, is_here: bool) -> None:
    assert tracking_address(f"http://{host}:5000").is_loopback == is_here
