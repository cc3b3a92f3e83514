"""What IPython runs before the code of a page: a line `!command` that fails is then an error, which stops the build.

By itself IPython goes on. A page that shows a command that fails on purpose says so: `!command || echo "exit code $?"`.
Progress bars are left out of what a command prints.
"""


def _system_of(shell):  # type: ignore[no-untyped-def] # in the page's own namespace, so nothing is imported into it
    """What runs the lines `!command`. It raises RuntimeError if any part of a command, or of its pipe, fails."""
    import re
    import subprocess

    def system(command: str) -> None:
        words = ["bash", "-o", "pipefail", "-c", shell.var_expand(command, depth=1)]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        last = [line.rpartition("\r")[2] for line in done.stdout.decode().split("\n")]  # as a terminal shows it
        print("\n".join(line for line in last if not re.match(r"\s*\d+%\|", line)), end="")
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {command}")

    return system


get_ipython().system = _system_of(get_ipython())  # type: ignore[name-defined] # noqa: F821
