"""Progress bars: in a notebook those of notebooks, if ipywidgets is installed, and everywhere else lines of text."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that ipywidgets is not there is no fault; the bars of text do
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
