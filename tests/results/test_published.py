"""The paper's figures, against a second transcription and against what the paper says of them."""

from verydeep.results import published as p

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


# VOC-2007, VOC-2012, Caltech-101, Caltech-256.
TABLE_11 = """
- 79.0 86.5+-0.5 74.2+-0.3
82.4 83.2 88.4+-0.6 77.6+-0.1
82.4 - 93.4+-0.5 -
81.5 81.7 - -
85.2 90.3 - -
89.3 89.0 91.8+-1.0 85.0+-0.2
89.3 89.0 92.3+-0.5 85.1+-0.3
89.7 89.3 92.7+-0.5 86.2+-0.3
"""


def line(row: p.Row) -> str:
    (member,) = row.members
    least, greatest = member.train
    train = str(least) if least == greatest else f"[{least};{greatest}]"
    test = ",".join(map(str, member.test))
    return f"{member.configuration} {train} {test} {row.metrics['top1']} {row.metrics['top5']}"


def metrics(row: p.Row) -> str:
    return " ".join(str(row.metrics.get(name)) for name in ("top1", "top5", "top5_test"))


def test_tables_3_and_4_equal_a_second_transcription() -> None:
    assert [line(row) for row in p.TABLES["3"]] == TABLE_3.split("\n")[1:-1]
    assert [line(row) for row in p.TABLES["4"]] == TABLE_4.split("\n")[1:-1]
    assert {row.method for _, row in p.rows("3", "4")} == {"dense"}


def test_table_5_equals_a_second_transcription() -> None:
    for name, cells in TABLE_5.items():
        own = [row for row in p.TABLES["5"] if row.members[0].configuration == name]
        rows = {row.method: f"{row.metrics['top1']}/{row.metrics['top5']}" for row in own}
        assert " ".join(rows[method] for method in ("dense", "crops", "dense+crops")) == cells
    assert {(m.train, m.test) for row in p.TABLES["5"] for m in row.members} == {((256, 512), (256, 384, 512))}
    assert len(p.TABLES["5"]) == 6


def test_tables_6_and_7_equal_a_second_transcription() -> None:
    six = [f"{len(row.members)} {row.method} {metrics(row)}" for row in p.TABLES["6"]]
    assert six == TABLE_6.split("\n")[1:-1]
    assert [metrics(row) for row in p.TABLES["7"]] == TABLE_7.split("\n")[1:-1]


def test_tables_8_to_10_equal_a_second_transcription() -> None:
    eight = [
        f"{row.members[0].regression} {row.members[0].tuned} {row.metrics['given_class']}" for row in p.TABLES["8"]
    ]
    assert eight == ["scr fc 36.4", "pcr fc 34.3", "pcr all 33.1"]
    nine = [(" + ".join(",".join(map(str, m.test)) for m in row.members), metrics(row)) for row in p.TABLES["9"]]
    assert nine == [
        ("256", "None 29.5 None"),
        ("384", "None 28.2 26.7"),
        ("352,384", "None 27.5 None"),
        ("256 + 352,384", "None 26.9 25.3"),
    ]
    ten = [metrics(row) for row in p.TABLES["10"]]
    assert ten == ["None 26.9 25.3", "None None 26.7", "None 30.0 29.9", "None None 34.2"]


def test_tables_11_and_12_equal_a_second_transcription() -> None:
    def word(row: p.Row, key: str) -> str:
        std = row.metrics.get(f"{key}_std")
        return str(row.metrics.get(key, "-")) + ("" if std is None else f"+-{std}")

    keys = ("voc2007", "voc2012", "caltech101", "caltech256")
    found = [" ".join(word(row, key) for key in keys) for row in p.TABLES["11"]]
    assert found == TABLE_11.split("\n")[1:-1]
    assert [row.metrics["voc2012-action"] for row in p.TABLES["12"]] == [70.2, 73.6, 76.3, 79.2, 84.0]


def test_what_the_text_says_of_the_tables_holds() -> None:
    tables = {
        n: {(r.members[0].configuration, r.members[0].train): r.metrics["top1"] for r in p.TABLES[n]} for n in "34"
    }
    single, several = tables["3"], tables["4"]
    assert single["A-LRN", p.SMALL] > single["A", p.SMALL], "normalization does not help"
    depth = [single[name, p.SMALL] for name in ("A", "B", "C", "D")]
    assert depth == sorted(depth, reverse=True), "deeper is better up to D"
    assert single["E", p.SMALL] > single["D", p.SMALL], "E is a little worse than D at S = 256"
    for name in "CDE":
        fixed = min(single[name, p.SMALL], single[name, p.LARGE])
        assert 0.8 <= round(fixed - single[name, p.JITTER], 1) <= 1.4, "scale jitter beats every fixed scale"
    assert all(several[key] < single[key] for key in several), "several test scales beat one"


def test_the_tables_agree_with_each_other() -> None:
    four = {row.members[0]: metrics(row) for row in p.TABLES["4"]}
    for row in p.TABLES["5"]:
        if row.method == "dense":
            assert four[row.members[0]] == metrics(row)
    six, seven = p.TABLES["6"], p.TABLES["7"]
    assert (metrics(seven[0]), metrics(seven[2])) == (metrics(six[-1]), metrics(six[0]))
    assert p.TABLES["9"][-1].metrics == p.TABLES["10"][0].metrics
    known = {(m.configuration, m.train, m.test) for m in four}
    for row in six:
        assert {(m.configuration, m.train, m.test) for m in row.members} <= known
        assert [m.tuned for m in row.members].count("fc") == (row is six[0])
