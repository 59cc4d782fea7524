"""What `explain` tells of an encrypted program, before there are keys: figures, layouts, alternatives, candidates.

`EncryptedExplanation` holds plain data (strings and numbers), so that it can be kept and written as JSON; it prints as
text 100 columns wide, in a notebook, and in a terminal through rich, as the explanation of other targets does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .explain import WIDTH, duration, size
from .explain_structure import FindingNote, finding_lines, finding_notes, near_texts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..backends.ckks.chain.noise import Prediction
    from ..backends.ckks.planning.plan import Plan
    from .encrypted import EncryptedCompiled
    from .encrypted_choice import Row

NO_PRIVACY = (
    "the server's constants are not hidden from the client: results may tell of them (no circuit privacy)",
    "do not publish decrypted results: their errors tell of the secret key (IND-CPA-D)",
)


@dataclass(frozen=True)
class EncryptedCandidate:
    """A row of the table of candidates. Without a plan, `milliseconds` is a lower bound and `reason` says why."""

    name: str
    steps: int
    milliseconds: float
    rotations: int = 0
    plain_products: int = 0
    cipher_products: int = 0
    levels: int = 0
    ring: int = 0
    uploads: int = 0
    key_bytes: int = 0
    chosen: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Alternative:
    """A plan of the chosen candidate that no other beats in time, uploads and keys at once."""

    milliseconds: float
    uploads: int
    key_bytes: int
    rotations: int
    ring: int
    levels: int


@dataclass(frozen=True)
class EncryptedExplanation:
    """What was compiled for encrypted inputs, and why.

    `figures` are those of `EncryptedCompiled.stats`; `steps` one line for each step of the plan, with its method;
    `layouts` where every value lies, as digits of slots (high to low) and positions in them; `sharing` what a second
    process would do for the time.
    """

    title: str
    program: str
    parameters: str
    figures: Mapping[str, Any]
    steps: tuple[str, ...] = ()
    layouts: tuple[tuple[str, str], ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    candidates: tuple[EncryptedCandidate, ...] = ()
    findings: tuple[FindingNote, ...] = ()
    facts: tuple[FindingNote, ...] = ()
    near_misses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sharing: str = ""

    @property
    def summary(self) -> str:
        """The whole story in one line."""
        first = self.title.strip().splitlines()[0] if self.title.strip() else "(empty program)"
        f = self.figures
        return (
            f"{first}  for ckks: {f['rotations']} rotations, {f['levels']} levels, ring {f['ring']}, "
            f"{duration(f['predicted_seconds'] * 1e9)}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, fit for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False, force_jupyter=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(*_sections(self))

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, record=True, legacy_windows=False, force_jupyter=False)
        console.print(self)
        frame = '<pre style="line-height:1.2;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=frame)


# --- from a compiled program ------------------------------------------------------------------------------------------


def statistics(compiled: EncryptedCompiled) -> dict[str, Any]:
    """Figures of the plan that runs; times in seconds of one core.

    `predicted_error` is the largest error of an element, `predicted_relative_error` that of an element of usual size.
    """
    plan, problem = compiled.plan, compiled.problem
    work, predicted = plan.work, prediction(plan)
    return {
        "candidate": compiled.choice.chosen.name,
        "rotations": work.rotations,
        "plain_products": work.plain_products,
        "cipher_products": work.cipher_products,
        "relinearisations": work.relinearisations,
        "rescales": work.rescales,
        "additions": work.additions,
        "levels": plan.levels,
        "ring": plan.parameters.ring,
        "slots": plan.parameters.slots,
        "uploads": plan.uploads,
        "downloads": plan.downloads,
        "keys": plan.keys,
        "key_bytes": plan.key_bytes,
        "ciphertext_bytes": plan.parameters.ciphertext_bytes(),
        "predicted_error": max(predicted.errors.values(), default=0.0),
        "predicted_relative_error": predicted.relative,
        "approximation_error": max((getattr(s, "error", 0.0) for s in problem.steps), default=0.0),
        "predicted_seconds": work.milliseconds / 1000,
        "planning_seconds": compiled.choice.seconds,
    }


def prediction(plan: Plan) -> Prediction:
    """The errors that noise will leave in results, for inputs and clear tensors of any values within their ranges.

    A server that knows the clear tensors predicts closer (`Server.predict`).
    """
    from ..backends.ckks.chain.noise import predict
    from ..backends.ckks.chain.ranges import assumed
    from ..backends.ckks.chain.scales import bind

    ranges = plan.program.ranges
    return predict(plan.circuit, bind(plan.circuit, plan.parameters), ranges, assumed(plan.circuit, ranges))


def explain_encrypted(compiled: EncryptedCompiled) -> EncryptedExplanation:
    """The story of a compiled program."""
    from ..ir.text import print_program
    from .findings import used_first

    plan, chosen, source = compiled.plan, compiled.choice.chosen, compiled.program.source
    used = chosen.variant.finding
    found = used_first(compiled.findings, used)
    structures, facts = finding_notes(found, source, found[0] if used is not None and found else None)
    return EncryptedExplanation(
        title=source.text.strip() or print_program(compiled.program),
        program=print_program(chosen.variant.program),
        parameters=plan.parameters.text(),
        figures=statistics(compiled),
        steps=plan.described,
        layouts=tuple((n, t) for n, t in plan.layouts.items() if t),
        alternatives=tuple(map(_alternative, chosen.plans or ())),
        candidates=tuple(_candidate(r, r is chosen) for r in compiled.choice.rows),
        findings=structures,
        facts=facts,
        near_misses=near_texts(compiled.near_misses),
        warnings=tuple(several_ciphertexts(compiled)),
        notes=NO_PRIVACY,
        sharing=shared(plan),
    )


def shared(plan: Plan) -> str:
    """What two processes would take, by the prices that decide whether `Server.processes = 0` takes them."""
    from ..backends.ckks.chain.scales import bind
    from ..backends.ckks.execution.partition import START, partition
    from ..backends.ckks.planning.cost import Prices

    parameters = plan.parameters
    found = partition(plan.circuit, bind(plan.circuit, parameters), Prices(parameters.ring, plan.rates), 2)
    both = found.milliseconds + START
    handed = f"{found.transfers} ciphertext{'' if found.transfers == 1 else 's'} handed over"
    verdict = "which pays: server.processes = 2" if both < found.alone else "which does not pay"
    return (
        f"{duration(both * 1e6)} by two processes with their start, {duration(found.alone * 1e6)} by one "
        f"(reading and answering included); {handed}, {verdict}"
    )


def several_ciphertexts(compiled: EncryptedCompiled) -> list[str]:
    """Sentences about inputs that take more than one ciphertext, and what that costs."""
    plan, out = compiled.plan, []
    for tensor in compiled.encrypted:
        packing = plan.circuit.uploads.get(tensor.name)
        values = 1
        for extent in tensor.shape:
            values *= extent.evaluate({})
        if packing is None or values <= plan.parameters.slots:
            continue
        products = plan.work.plain_products + plan.work.cipher_products
        out.append(
            f"{values} values need {-(-values // plan.parameters.slots)} ciphertexts of {plan.parameters.slots} slots; "
            f"this plan sends {packing.ciphertexts} and takes {products} products"
        )
    return out


def _alternative(plan: Plan) -> Alternative:
    work = plan.work
    return Alternative(
        work.milliseconds, plan.uploads, plan.key_bytes, work.rotations, plan.parameters.ring, plan.levels
    )


def _candidate(row: Row, chosen: bool) -> EncryptedCandidate:
    steps = len(row.problem.steps)
    if row.plans is None:
        return EncryptedCandidate(row.name, steps, row.bound, reason=row.reason)
    plan, work = row.best, row.best.work
    return EncryptedCandidate(
        row.name,
        steps,
        work.milliseconds,
        work.rotations,
        work.plain_products,
        work.cipher_products,
        plan.levels,
        plan.parameters.ring,
        plan.uploads,
        plan.key_bytes,
        chosen,
    )


# --- drawing ----------------------------------------------------------------------------------------------------------


def _sections(note: EncryptedExplanation) -> list[RenderableType]:
    """The parts of the printed form; empty parts are left out."""
    from rich.rule import Rule
    from rich.text import Text

    def plain(text: str, style: str = "") -> Text:
        return Text(text, style=style, overflow="fold")

    parts: list[RenderableType] = [plain(note.title.strip("\n"), "bold"), plain("target ckks", "dim")]

    def section(name: str, *body: RenderableType) -> None:
        parts.extend((Rule(plain(name, "bold"), align="left", style="dim"), *body))

    if note.warnings:
        section("warnings", *(plain(f"- {line}", "yellow") for line in note.warnings))
    section("encryption", plain(note.parameters), _figures_table(note.figures, note.sharing))
    section("program", plain(note.program.strip("\n")))
    if note.findings:
        section("structure", *finding_lines(note.findings))
    if note.facts:
        section("facts", *finding_lines(note.facts))
    if note.near_misses:
        section("not found", *(plain(f"- {line}") for line in note.near_misses))
    section("candidates", _candidate_table(note.candidates))
    if note.steps:
        section("steps", *(plain(line) for line in note.steps))
    if note.layouts:
        section("layouts", *(plain(f"{name}: {text}") for name, text in note.layouts))
    if len(note.alternatives) > 1:
        section("alternatives", _alternative_table(note.alternatives))
    if note.notes:
        section("notes", *(plain(f"- {line}") for line in note.notes))
    return parts


def _figures_table(figures: Mapping[str, Any], sharing: str) -> RenderableType:
    from rich.table import Table

    f = figures
    approximated = f", and {f['approximation_error']:.1e} of approximated functions" if f["approximation_error"] else ""
    rows = (
        ("depth", f"{f['levels']} levels"),
        ("operations", f"{f['rotations']} rotations, {f['plain_products']} products with plain vectors, "
                       f"{f['cipher_products']} of ciphertexts, {f['relinearisations']} relinearisations"),
        ("slots", f"{f['slots']} in each ciphertext of {size(f['ciphertext_bytes'])}; "
                  f"{f['uploads']} sent, {f['downloads']} returned"),
        ("keys", f"{f['keys']}, {size(f['key_bytes'])}"),
        ("error", f"{f['predicted_error']:.1e} by noise, {f['predicted_relative_error']:.1e} of a usual result"
                  f"{approximated}"),
        ("time", f"{duration(f['predicted_seconds'] * 1e9)} of one core, predicted; "
                 f"planned in {duration(f['planning_seconds'] * 1e9)}"),
        ("processes", sharing),
    )  # fmt: skip
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    table.add_column("", no_wrap=True, style="dim")
    table.add_column("", ratio=1, overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    return table


def _candidate_table(notes: Sequence[EncryptedCandidate]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("candidate", ratio=1, overflow="fold")
    for head in ("rotations", "products", "levels", "ring", "uploads", "keys", "predicted"):
        table.add_column(head, justify="right", no_wrap=True)
    for n in notes:
        name = Text(n.name, style="bold" if n.chosen else "")
        if n.reason:
            name.append(f"  ({n.reason})", "dim")
            table.add_row("", name, "", "", "", "", "", "", f"> {duration(n.milliseconds * 1e6)}")
            continue
        products = str(n.plain_products) + (f" + {n.cipher_products}" if n.cipher_products else "")
        table.add_row(
            "*" if n.chosen else "", name, str(n.rotations), products, str(n.levels), str(n.ring), str(n.uploads),
            size(n.key_bytes), duration(n.milliseconds * 1e6),
        )  # fmt: skip
    return table


def _alternative_table(notes: Sequence[Alternative]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in ("predicted", "uploads", "keys", "rotations", "levels", "ring"):
        table.add_column(head, justify="right", no_wrap=True)
    for n in notes:
        table.add_row(
            duration(n.milliseconds * 1e6), str(n.uploads), size(n.key_bytes), str(n.rotations), str(n.levels),
            str(n.ring),
        )  # fmt: skip
    return table
