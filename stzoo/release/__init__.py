"""What maintainers do: enter models in this checkout's catalogue, check and publish them, and write their pages."""
