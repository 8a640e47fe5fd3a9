"""The paper's figures, against a second transcription and against what the paper says of them."""

from verydeep.study import published as p

# configuration, S, Q, top-1, top-5: written down a second time, from the tables of arXiv:1409.1556v6.
TABLE_3 = """
A 256 256 29.6 10.4
A-LRN 256 256 29.7 10.5
B 256 256 28.7 9.9
C 256 256 28.1 9.4
C 384 384 28.1 9.3
C [256;512] 384 27.3 8.8
D 256 256 27.0 8.8
D 384 384 26.8 8.7
D [256;512] 384 25.6 8.1
E 256 256 27.3 9.0
E 384 384 26.9 8.7
E [256;512] 384 25.5 8.0
"""
TABLE_4 = """
B 256 224,256,288 28.2 9.6
C 256 224,256,288 27.7 9.2
C 384 352,384,416 27.8 9.2
C [256;512] 256,384,512 26.3 8.2
D 256 224,256,288 26.6 8.6
D 384 352,384,416 26.5 8.6
D [256;512] 256,384,512 24.8 7.5
E 256 224,256,288 26.9 8.7
E 384 352,384,416 26.7 8.6
E [256;512] 256,384,512 24.8 7.5
"""
TABLE_5 = {"D": "24.8/7.5 24.6/7.5 24.4/7.2", "E": "24.8/7.5 24.6/7.4 24.4/7.1"}
TABLE_6 = """
7 dense 24.7 7.5 7.3
2 dense 24.0 7.1 7.0
2 crops 23.9 7.2 None
2 dense+crops 23.7 6.8 6.8
"""
TABLE_7 = """
23.7 6.8 6.8
24.4 7.1 7.0
24.7 7.5 7.3
None 7.9 7.9
None 6.7 6.7
None None 8.1
27.9 9.1 9.1
None None 11.7
None None 12.5
36.0 14.7 14.8
37.5 16.0 16.1
34.0 13.2 13.6
35.7 14.2 None
38.1 16.4 16.4
40.7 18.2 None
"""


def line(result: p.Result) -> str:
    least, greatest = result.train
    train = str(least) if least == greatest else f"[{least};{greatest}]"
    return f"{result.configuration} {train} {','.join(map(str, result.test))} {result.top1} {result.top5}"


def test_tables_3_and_4_equal_a_second_transcription() -> None:
    assert [line(r) for r in p.TABLE_3] == TABLE_3.split("\n")[1:-1]
    assert [line(r) for r in p.TABLE_4] == TABLE_4.split("\n")[1:-1]
    assert {r.method for r in p.TABLE_3 + p.TABLE_4} == {"dense"}


def test_table_5_equals_a_second_transcription() -> None:
    for name, cells in TABLE_5.items():
        rows = {r.method: f"{r.top1}/{r.top5}" for r in p.TABLE_5 if r.configuration == name}
        assert " ".join(rows[method] for method in ("dense", "crops", "dense+crops")) == cells
    assert {(r.train, r.test) for r in p.TABLE_5} == {((256, 512), (256, 384, 512))}
    assert len(p.TABLE_5) == 6


def test_tables_6_and_7_equal_a_second_transcription() -> None:
    six = [f"{len(f.members)} {f.method} {f.top1} {f.top5} {f.top5_test}" for f in p.TABLE_6]
    assert six == TABLE_6.split("\n")[1:-1]
    seven = [f"{c.top1} {c.top5} {c.top5_test}" for c in p.TABLE_7]
    assert seven == TABLE_7.split("\n")[1:-1]


def test_what_the_text_says_of_the_tables_holds() -> None:
    single = {(r.configuration, r.train): r.top1 for r in p.TABLE_3}
    several = {(r.configuration, r.train): r.top1 for r in p.TABLE_4}
    assert single["A-LRN", p.SMALL] > single["A", p.SMALL], "normalization does not help"
    depth = [single[name, p.SMALL] for name in ("A", "B", "C", "D")]
    assert depth == sorted(depth, reverse=True), "deeper is better up to D"
    assert single["E", p.SMALL] > single["D", p.SMALL], "E is a little worse than D at S = 256"
    for name in "CDE":
        fixed = min(single[name, p.SMALL], single[name, p.LARGE])
        assert 0.8 <= round(fixed - single[name, p.JITTER], 1) <= 1.4, "scale jitter beats every fixed scale"
    assert all(several[key] < single[key] for key in several), "several test scales beat one"


def test_the_tables_agree_with_each_other() -> None:
    table_4 = {(r.configuration, r.train): (r.top1, r.top5) for r in p.TABLE_4}
    for result in p.TABLE_5:
        if result.method == "dense":
            assert table_4[result.configuration, result.train] == (result.top1, result.top5)
    best, submission = p.TABLE_6[-1], p.TABLE_6[0]
    assert (p.TABLE_7[0].top1, p.TABLE_7[0].top5, p.TABLE_7[0].top5_test) == (
        best.top1,
        best.top5,
        best.top5_test,
    )
    assert (p.TABLE_7[2].top1, p.TABLE_7[2].top5) == (submission.top1, submission.top5)
    known = {(r.configuration, r.train, r.test) for r in p.TABLE_4}
    for fusion in p.TABLE_6:
        assert {(m.configuration, m.train, m.test) for m in fusion.members} <= known
        assert [m.fc_only for m in fusion.members].count(True) == (fusion is submission)
