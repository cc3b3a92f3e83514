"""`stzoo benchmark`: how fast a forecaster runs here, what share of the machine that uses, and what memory it takes."""
