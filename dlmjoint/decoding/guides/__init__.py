"""Who may send drafts back: an autoregressive model, or the base itself."""
