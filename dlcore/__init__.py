"""Training feed-forward networks on tables with PyTorch; knows nothing of studies, Optuna, MLflow or SQL."""
