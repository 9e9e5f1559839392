"""The measured claims, side by side with what people do today; see RESULTS.md."""
