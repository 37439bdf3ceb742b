"""What result files hold once they are loaded. Plain data: nothing here reads files or draws."""

from dataclasses import dataclass, field
from pathlib import Path

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Context:
    """Where numbers come from: the recorded keys of one result file (reports/results/README.md lists them).

    Values are kept as text, as Google Benchmark writes custom context; `number` reads one as a number.
    """

    source: str
    values: dict[str, str] = field(default_factory=dict)

    def text(self, key: str) -> str:
        return self.values.get(key) or NOT_RECORDED

    @property
    def short_hash(self) -> str:
        return self.values.get("source_hash", "")[:12] or NOT_RECORDED

    def number(self, key: str) -> float | None:
        """The positive, finite number recorded under `key`; None if there is none."""
        try:
            value = float(self.values.get(key, ""))
        except ValueError:
            return None
        return value if 0.0 < value < float("inf") else None


@dataclass
class Benchmark:
    """One benchmark with one set of arguments, and the raw repetitions of it.

    `seconds` and each list in `counters` have one entry a repetition. `keys` are the `key:value` parts of the
    name in their order, `provider` among them; `stem` is the part before the first `/`.
    """

    name: str
    stem: str
    keys: dict[str, str]
    context: Context
    seconds: list[float] = field(default_factory=list)
    counters: dict[str, list[float]] = field(default_factory=dict)
    label: str = ""

    @property
    def provider(self) -> str:
        return self.keys.get("provider", self.stem)

    def integer(self, key: str) -> int | None:
        """The value of `key` as a whole number; None if the name has no such key or it is not one."""
        value = self.keys.get(key, "")
        return int(value) if value.isdecimal() and value.isascii() and len(value) < 19 else None

    def without(self, *keys: str) -> tuple[tuple[str, str], ...]:
        """The keys but those named: two benchmarks with equal results of this differ only in those named."""
        return tuple((key, value) for key, value in self.keys.items() if key not in keys)


@dataclass
class Session:
    """The benchmark results of one device, driver and source hash: what may stand in one figure.

    `omitted` lists the rows that cannot be drawn, each with its reason, so that nothing is dropped in silence.
    """

    contexts: list[Context] = field(default_factory=list)
    benchmarks: list[Benchmark] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        context = self.contexts[0]
        return f"{context.values.get('device') or context.source}, sources {context.short_hash}"

    def ceiling(self, key: str) -> float | None:
        """The best recorded value of a measured ceiling, over the files of this session."""
        return max((value for context in self.contexts if (value := context.number(key))), default=None)


@dataclass(frozen=True)
class GateRow:
    """One compared benchmark of a gate run. change, its interval and floor are fractions of the base's time: 0.05 is
    5 % slower."""

    name: str
    verdict: str
    change: float
    low: float
    high: float
    floor: float
    rounds: int


@dataclass
class GateRun:
    """A gate run: its compared rows, the others (text: name, outcome and reason), and the whole verdict."""

    context: Context
    verdict: str
    rows: list[GateRow]
    uncompared: list[str]

    @property
    def name(self) -> str:
        return self.context.source


@dataclass
class TrainingRun:
    """The lines of one `metrics.jsonl`: (step, loss) of training and (step, eval_loss) of evaluation."""

    name: str
    context: Context
    losses: list[tuple[float, float]]
    eval_losses: list[tuple[float, float]]


@dataclass(frozen=True)
class LayoutCost:
    """One layout of `qshard plan --layouts`; same_as is the place of the first one that moves the same. layer_gather_seconds:
    of one decoder layer, 0 where it is not known."""

    storage: str
    unit: str
    scales: str
    strategy: str
    held_bytes: float
    gathered_bytes: float
    messages: float
    gather_seconds: float
    step_seconds: float
    same_as: int
    layer_gather_seconds: float = 0.0


@dataclass(frozen=True)
class Span:
    """One entry of a step's time line: what a lane does for a layer, in seconds since the micro-batch began."""

    lane: str
    what: str
    layer: int
    begin: float
    end: float


@dataclass(frozen=True)
class Knob:
    """A change of one option: the step's seconds with it, and what becomes of tokens a second and GPU (0.1: 10 % more)."""

    change: str
    seconds: float
    gain: float


@dataclass(frozen=True)
class MemoryMoment:
    """Bytes of a rank from `at` seconds after the micro-batch began until the next moment."""

    at: float
    gathered: float
    inputs: float


@dataclass(frozen=True)
class StepPlan:
    """The step that `qshard plan` predicts: its seconds, those of each part, and the time line of its first micro-batch; with
    the memory over that, the knobs and a pipeline's seconds where the plan has them (0: one GPU, or an older plan)."""

    seconds: float
    parts: dict[str, float]
    hidden_share: float
    gpu: str
    link: str
    timeline: list[Span]
    knobs: list[Knob] = field(default_factory=list)
    memory: list[MemoryMoment] = field(default_factory=list)
    pipeline_seconds: float = 0.0


@dataclass
class ShardLayout:
    """What each rank's memory holds: for each rank (in order) the bytes of each part, and its capacity if known; the layouts
    that it was compared with and the step that was predicted, if they were."""

    name: str
    context: Context
    ranks: list[int]
    bytes_by_rank: list[dict[str, float]]
    capacities: list[float | None]
    layouts: list[LayoutCost] = field(default_factory=list)
    step: StepPlan | None = None


@dataclass
class Results:
    """Everything that was given, by kind. Of files in given folders, `ignored` names those that are no result files, and
    `broken` says of each malformed one what is wrong."""

    sessions: list[Session] = field(default_factory=list)
    gates: list[GateRun] = field(default_factory=list)
    runs: list[TrainingRun] = field(default_factory=list)
    layouts: list[ShardLayout] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def providers(self) -> list[str]:
        return sorted({row.provider for session in self.sessions for row in session.benchmarks})


def path_name(path: Path) -> str:
    """The short name a file has in captions: its folder and its own name."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name
