"""`python -m reports RESULTS... --output DIR`: see --help."""

import argparse
import mmap
import os
import signal
import sys
import traceback
from pathlib import Path

try:  # with too little address space the libraries cannot be loaded, and NumPy's OpenBLAS asks for it again without end
    mmap.mmap(-1, 200 << 20).close()
except OSError:
    print("qshard report: error: not enough address space; raise the limit on it (ulimit -v)", file=sys.stderr)
    sys.exit(3)

from reports import page  # noqa: E402
from reports.errors import OutOfSpace, ReportError  # noqa: E402
from reports.figures import FIGURES  # noqa: E402
from reports.loading import load  # noqa: E402
from reports.model import Results  # noqa: E402
from reports.output import FULL, claimed, fewer_colours, write  # noqa: E402
from reports.render import render  # noqa: E402

DESCRIPTION = """\
Draws what result files hold: one self-contained page (report.html), the same in Markdown (report.md), and below
figures/ each picture as SVG and PNG with its numbers as CSV.

RESULTS are files, or folders searched for them: Google Benchmark JSON with raw repetitions, the JSON of a gate run,
metrics.jsonl of a training run, and shard layouts. reports/results/README.md describes them.
"""


def parser() -> argparse.ArgumentParser:
    needs = "\n".join(f"  {kind.heading}: {kind.needs}" for kind in FIGURES)
    arguments = argparse.ArgumentParser(
        prog="qshard report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"figures and what each is drawn from:\n{needs}\n\nexit status: 0 done; 2 bad input or usage; 3 memory or disk is full",
    )
    arguments.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="a result file or a folder of them")
    arguments.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to write the report")
    arguments.add_argument("--small", action="store_true", help="only report.md and PNG pictures, for a repository")
    return arguments


def draw(options: argparse.Namespace) -> None:
    results = load(options.results)
    for line in results.broken:
        print(f"qshard report: left out: {line}", file=sys.stderr)
    with claimed(options.output):
        write_report(results, options)
    sys.stdout.flush()


def write_report(results: Results, options: argparse.Namespace) -> None:
    gallery = render(results, lambda stem: print(f"drawing {stem}", file=sys.stderr))
    for picture in gallery.pictures:
        png = fewer_colours(picture.png) if options.small else picture.png
        files = {"svg": picture.svg, "png": png, "csv": picture.csv}
        for extension, content in files.items():
            if not options.small or extension == "png":
                write(options.output / page.PICTURES / f"{picture.stem}.{extension}", content)
    write(options.output / "report.md", page.markdown(gallery, results, "png" if options.small else "svg"))
    if not options.small:
        write(options.output / "report.html", page.html(gallery, results))
    print(f"{len(gallery.pictures)} figures: {options.output / ('report.md' if options.small else 'report.html')}")


def _terminate(*_):
    raise Terminated


class Terminated(BaseException):
    """SIGTERM came."""


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        draw(options)
        return 0
    except ReportError as error:
        message, code = str(error), 3 if isinstance(error, OutOfSpace) else 2
    except MemoryError:
        message, code = "not enough memory", 3
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # the interpreter's own flush at the end must not fail too
        return 128 + signal.SIGPIPE
    except OSError as error:
        message, code = f"{error.filename or 'standard output'}: {error.strerror}", 3 if error.errno in FULL else 2
    except (KeyboardInterrupt, Terminated) as error:
        message = "interrupted; every file that was written is whole"
        code = 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
    except Exception as error:  # the libraries raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        message, code = f"cannot be drawn: {reason} ({place.filename}:{place.lineno})", 2
    print(f"qshard report: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
