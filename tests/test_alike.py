"""Lines that are taken without a decode are the rows that a decode makes of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accumulator._alike import BETWEEN, AlikeRows
from accumulator._inputs import find_inputs, units_of
from accumulator._rows import BadRow, Keys, RowReader

Rows = list[tuple[object, object, bytes]]


def a_line(id: object, seq: object, text: str, more: str = "", order: str = "isc") -> bytes:
    """Write a row; `text` stands in its JSON as it is, `more` behind the chunk."""
    chunk = f'{{"id":"c","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}'
    ids, seqs = json.dumps(id), json.dumps(seq)
    parts = {"i": f'"id":{ids}', "s": f'"seq":{seqs}', "c": f'"chunk":{chunk}'}
    return ("{" + ",".join(parts[each] for each in order) + more + "}\n").encode(
        "utf-8", "surrogatepass"
    )


def read(path: Path, *, alike: bool) -> tuple[Rows, list[BadRow], int, int]:
    bad: list[BadRow] = []
    rows: Rows = []
    alike_rows = lines = 0
    for unit in units_of(find_inputs([str(path)])):
        reader = RowReader(unit, Keys(), bad.append, alike=alike)
        for some in reader:
            if isinstance(some, AlikeRows):
                alike_rows += some.count
                texts = some.joined.split(BETWEEN)
                assert len(texts) == some.count
                decoded = "".join(json.loads(b'"%b"' % text) for text in texts)
                assert some.text == decoded.encode()
                for place, text in enumerate(texts):
                    seq = None if some.first is None else some.first + place
                    rows.append((some.id, seq, some.head + text + some.tail))
            else:
                seqs = some.seqs or [None] * some.count
                rows += zip(some.ids, seqs, some.chunks, strict=True)
        lines += reader.lines
    return rows, bad, lines, alike_rows


def check(lines: list[bytes], path: Path) -> int:
    """Compare; tell how many rows were told as alike."""
    path.write_bytes(b"".join(lines))
    *plain, none = read(path, alike=False)
    *quickly, count = read(path, alike=True)
    assert quickly == plain
    assert none == 0
    return count


def words(count: int) -> Iterator[str]:
    return (f"w{place * 7919 % 1000} " for place in range(count))


@pytest.mark.parametrize("order", ["isc", "ic", "sic", "csi"])
def test_rows_of_one_stream_are_alike(order: str, tmp_path: Path) -> None:
    lines = [a_line("a", seq, text, order=order) for seq, text in enumerate(words(300))]
    assert check(lines, tmp_path / "log") > (290 if order != "csi" else -1)


@pytest.mark.parametrize("broken", [0, 1, 40, 41])
def test_a_line_that_is_no_json_is_a_bad_row_between_alike_ones(
    broken: int, tmp_path: Path
) -> None:
    lines = [a_line("a", seq, text) for seq, text in enumerate(words(300))]
    lines[broken] = lines[broken].replace(b'"seq":', b'"seq";')
    assert check(lines, tmp_path / "log") > 200


NEVER_ALIKE: dict[str, list[bytes]] = {
    "an id that is a number": [a_line(7, seq, "w") for seq in range(100)],
    "an empty id": [a_line("", seq, "w") for seq in range(100)],
    "a sequence number below 0": [a_line("a", seq - 100, "w") for seq in range(100)],
    "what stands between texts": [a_line("a", seq, "\x7f") for seq in range(100)],
}


@pytest.mark.parametrize("lines", NEVER_ALIKE.values(), ids=NEVER_ALIKE)
def test_rows_that_are_never_taken_as_alike(lines: list[bytes], tmp_path: Path) -> None:
    assert check(lines, tmp_path / "log") == 0


def test_bare_chunks_are_alike(tmp_path: Path) -> None:
    lines = [
        b'{"id":"%b","choices":[{"delta":{"content":"%b"}}]}\n' % (id, text.encode())
        for id in (b"a", b"b")
        for text in words(100)
    ]
    assert check(lines, tmp_path / "log") > 190


ODD = {
    "a repeat": a_line("a", 49, "x"),
    "a gap": a_line("a", 60, "x"),
    "no number": a_line("a", None, "x"),
    "another stream": a_line("b", 50, "x"),
    "a text with a quote": a_line("a", 50, '\\"x\\"'),
    "a text that ends early": a_line("a", 50, 'x"'),
    "a text that hides its end": a_line("a", 50, "x\\"),
    "two texts": a_line("a", 50, 'x","y":"z'),
    "another id behind": a_line("a", 50, "x", more=',"id":"b"'),
    "another id within": a_line("a", 50, 'x"}}]},"id":"b","k":{"k":[{"k":{"k":"'),
    "a control character": a_line("a", 50, "\x01"),
    "half a pair": a_line("a", 50, "\\ud83d"),
    "half a pair as bytes": a_line("a", 50, "\ud83d"),
    "no UTF-8": a_line("a", 50, "x").replace(b'"x"', b'"\xff"'),
    "an empty line": b"\n",
    "no JSON": b'{"id": "a", "chunk"\n',
    "the end": b"data: [DONE]\n",
    "a carriage return": a_line("a", 50, "x").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_line_that_is_not_alike_is_what_a_decode_makes_of_it(name: str, tmp_path: Path) -> None:
    lines = [a_line("a", seq, text) for seq, text in enumerate(words(100))]
    lines[50:50] = [ODD[name]]
    assert check(lines, tmp_path / "log") > 50
    # Also where it is one of the two that are learnt from.
    for place in (0, 1, 2):
        check([*lines[1 : 1 + place], ODD[name], *lines[1:20]], tmp_path / "log")
        check([ODD[name]] * 3, tmp_path / "log")


PIECES = st.sampled_from(
    ["x", "", " ", '\\"', '"', "\\", "\\\\", '","', '":"', ",", "é", "\\u00e9", "\\ud83d", "}"]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a", "a", "b", 7, ""]),
            st.sampled_from([0, 1, 1, 1, 1, 2, None]),
            st.lists(PIECES, max_size=3).map("".join),
        ),
        max_size=40,
    )
)
def test_any_lines_come_to_what_a_decode_makes_of_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, int | None, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    seq = 8
    lines = []
    for id, step, text in rows:
        seq += step or 0
        lines.append(a_line(id, seq if step is not None else None, text))
    check(lines, path)


@pytest.mark.parametrize("first", [0, 7, 95, 16_000, 10**6 - 50])
def test_rows_are_alike_whatever_their_numbers(first: int, tmp_path: Path) -> None:
    lines = [a_line("a", seq, text) for seq, text in enumerate(words(600), first)]
    assert check(lines, tmp_path / "log") > 590


def test_lines_that_differ_in_their_ids_are_not_alike(tmp_path: Path) -> None:
    lines = [a_line(f"a{place}", None, "x", ',"k":"value"', order="ci") for place in range(40)]
    assert check(lines, tmp_path / "log") == 0


def test_a_line_end_is_in_no_string() -> None:
    """What the proof rests on: the decoder takes no control character within a string."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(b'["a\\"\n,"]')
