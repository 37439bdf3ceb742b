"""Numbers with units, for people. Rates are decimal (1 GB/s = 1e9 bytes/s); memory is binary (1 GiB = 2^30 bytes)."""

GIB = float(1 << 30)


def seconds(value: float) -> str:
    for factor, unit in ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms")):
        if value < 999.5 * factor:
            return f"{significant(value / factor)} {unit}"
    return f"{significant(value)} s"


def rate(value: float, unit: str) -> str:
    """A rate with a decimal prefix: rate(3.2e12, 'B/s') is '3.2 TB/s'."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def binary_bytes(value: float) -> str:
    """Memory with a binary prefix: binary_bytes(1.5 * 2**30) is '1.50 GiB'."""
    for factor, unit in ((GIB, "GiB"), (float(1 << 20), "MiB"), (1024.0, "KiB")):
        if value >= factor:
            return f"{significant(value / factor)} {unit}"
    return f"{value:.0f} B"


def percent(fraction: float) -> str:
    return f"{100.0 * fraction:.0f} %" if fraction >= 0.0995 else f"{100.0 * fraction:.1f} %"


def signed_percent(fraction: float) -> str:
    return f"{round(100.0 * fraction, 1) or 0.0:+.1f} %".replace("+0.0", "0.0")


def times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10.0 else f"{ratio:.1f}×"


def tick(text: str) -> str:
    """A number with its unit as an axis shows it: without the zeros that only say how exact it is."""
    number, _, unit = text.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def significant(value: float) -> str:
    """Three significant digits without an exponent."""
    magnitude = abs(value)
    digits = 0 if magnitude >= 99.95 or value == 0.0 else 1 if magnitude >= 9.995 else 2
    return f"{value:.{digits}f}" if magnitude >= 0.01 or value == 0.0 else f"{value:.2g}"
