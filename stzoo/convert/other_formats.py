"""Files that are not what `torch.save` writes, told by their first bytes, and what to do about each in one sentence."""

from __future__ import annotations

RESAVE = "where it was written, save its tensors alone: torch.save(model.state_dict(), 'tensors.pth')"
RESAVE_PROGRAM = "save its tensors alone: torch.save(torch.jit.load(FILE).state_dict(), 'tensors.pth')"
AGAIN = "download it again"
ZIP = b"PK\3\4"
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"), b"BZh": ("bzip2", "bunzip2"), b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"), b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"), b"Rar!": ("RAR", "unrar x"),
}  # fmt: skip
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<!--")


def other_format(start: bytes, size: int) -> str | None:
    """What a file of `size` bytes that begins with `start` is instead of a checkpoint, and what to do; None if unknown.

    `start` are its first 512 bytes, or all if there are fewer.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        return "it is a web page; download the file itself, by the address of its download link"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs in place of the file; fetch the file with git lfs pull"
    for magic, (name, command) in _PACKED.items():
        if start.startswith(magic):
            return f"it is packed by {name}; unpack it first ({command})"
    if start[257:262] == b"ustar":
        return "it is a tar archive; unpack it first (tar -xf), and convert the checkpoint that lies in it"
    if start.startswith(b"\x89HDF"):
        return "it is an HDF5 file, as Keras and netCDF write them; stzoo converts files of PyTorch"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return (
            "it is a safetensors file; if stzoo wrote it, stzoo.load opens it, and otherwise save its tensors once "
            "more: torch.save(safetensors.torch.load_file(FILE), 'tensors.pth')"
        )
    if start and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return f"it is text; {AGAIN}, by the address of its download link"
    return None
