import pytest
import torch

from dlcore.activations import ACTIVATIONS
from dlcore.elementwise import NEEDS_INPUT, backward_op, forward_op, leaky_relu_ops


@pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-14), (torch.float32, 3e-7)])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_derivatives_are_those_of_autograd(name, dtype, within):
    x = torch.cat([torch.linspace(-9, 9, 91), torch.tensor([0.0, 1e-8, -1e-8, 40.0, -40.0])]).to(dtype)[:, None]
    x = x.expand(-1, 3).contiguous().requires_grad_()
    expected = ACTIVATIONS[name].function(x, 0.2)
    incoming = torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(expected, x, incoming)
    z, gradient = x.detach().clone(), incoming.clone()
    out = torch.empty_like(z) if name in NEEDS_INPUT else z
    if name == "leaky_relu":
        forward, backward = leaky_relu_ops(z, gradient, 0.2)
        assert backward is not None
    else:
        forward, backward = forward_op(name, z, out), backward_op(name, gradient, z)
    forward()
    torch.testing.assert_close(out, expected.detach(), rtol=0, atol=within * 40)
    backward()
    torch.testing.assert_close(gradient, slope, rtol=0, atol=within * 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_stays_zero_but_for_sigmoid(dtype):
    for name in sorted(ACTIVATIONS.keys() - {"sigmoid", "leaky_relu"}):
        z = torch.zeros(4, 4, dtype=dtype)
        out = torch.ones_like(z) if name in NEEDS_INPUT else z
        forward_op(name, z, out)()
        assert not out.any(), name


def test_each_row_may_have_its_own_slope():
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    slopes = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)[:, None]
    expected = ACTIVATIONS["leaky_relu"].function(x, slopes)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    z, gradient = x.detach().clone(), torch.ones_like(x)
    forward, backward = leaky_relu_ops(z, gradient, slopes)
    forward()
    assert torch.equal(z, expected)
    assert backward is not None
    backward()
    assert torch.equal(gradient, slope)
