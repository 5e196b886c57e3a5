"""Files that every rule accepts."""

import io
import zipfile
from collections.abc import Iterator, Sequence

from corpus.case import (
    EMPTY,
    ONE,
    WIDTH_BITS,
    Case,
    Recipe,
    file,
    laid_out,
    padded,
    pattern,
    table,
    tensor,
)


def cases() -> list[Case]:
    """All of them."""
    parts = (
        _dtypes(),
        _shapes(),
        _empty_tensors(),
        _offsets(),
        _headers(),
        _names(),
        _metadata(),
        _data(),
        _made(),
    )
    return [case for part in parts for case in part]


def _case(name: str, rule: str, about: str, data: bytes | Recipe, verify: str | None = None) -> Case:
    return Case(f"valid/{name}.safetensors", about, rule, data, verify=verify)


def _dtypes() -> Iterator[Case]:
    for dtype, bits in WIDTH_BITS.items():
        about = f"four elements of {dtype} take {4 * bits // 8} bytes"
        yield _case(f"dtype_{dtype.lower()}", "dtype", about, laid_out(("a", dtype, [4])))
    down = [(dtype.lower(), dtype, [4]) for dtype in reversed(WIDTH_BITS)]
    about = "all 22 element types in one file, widest first, as writers place them"
    yield _case("dtypes_descending", "dtype", about, laid_out(*down))
    about = "all 22 element types in one file, narrowest first, so that most are misaligned"
    yield _case("dtypes_ascending", "alignment", about, laid_out(*reversed(down)))
    escaped = padded('{"a":{"dtype":"\\u004632","shape":[1],"data_offsets":[0,4]}}', pattern(4))
    yield _case("dtype_escaped", "json-strings", "an escape inside a dtype reads as the character", escaped)


def _shapes() -> Iterator[Case]:
    for name, dtype, shape, about in (
        ("rank_0", "F32", [], "a tensor without dimensions has one element"),
        ("rank_0_bool", "BOOL", [], "a truth value without dimensions takes one byte"),
        ("rank_0_c64", "C64", [], "a complex number without dimensions takes eight bytes"),
        ("rank_1", "I16", [3], "a vector"),
        ("rank_2", "F16", [2, 3], "a matrix"),
        ("rank_8", "I8", [1, 2, 1, 2, 1, 2, 1, 2], "eight dimensions"),
        ("rank_1000", "U8", [1] * 1000, "a thousand dimensions of one"),
        ("f4_even_count", "F4", [3, 2], "six elements of four bits fill three bytes"),
        ("f4_odd_rows", "F4", [2, 3], "rows of three four-bit elements end inside a byte, all of them together do not"),
        ("f6_four", "F6_E2M3", [2, 2], "four elements of six bits fill three bytes"),
        ("f6_twelve", "F6_E3M2", [3, 4], "twelve elements of six bits fill nine bytes"),
    ):
        rule = "sub-byte" if name.startswith("f") else "shape"
        yield _case(name, rule, about, laid_out(("a", dtype, shape)))


def _empty_tensors() -> Iterator[Case]:
    shapes: list[tuple[str, Sequence[int], str]] = [
        ("zero_only", [0], "a vector of length 0 takes no bytes"),
        ("zero_first", [0, 3], "the first of two dimensions is 0"),
        ("zero_middle", [2, 0, 3], "the middle one of three dimensions is 0"),
        ("zero_last", [3, 0], "the last of two dimensions is 0"),
        ("zero_then_large", [0, 2**63 - 1, 2**63 - 1], "dimensions after a leading 0 do not overflow"),
        ("zero_then_largest", [0, 2**64 - 1], "the largest dimension there is, after a 0"),
    ]
    for name, shape, about in shapes:
        yield _case(name, "shape", about, laid_out(("a", "F32", shape)))
    yield _case("zero_f4", "sub-byte", "no elements of four bits fill no bytes", laid_out(("a", "F4", [0])))
    yield _case("zero_f6", "sub-byte", "no elements of six bits fill no bytes", laid_out(("a", "F6_E2M3", [0, 3])))
    u8, f32, none = ("a", "U8", [3]), ("b", "F32", [1]), ("z", "F64", [0])
    for place, tensors in (
        ("at_start", (none, u8, f32)),
        ("between", (u8, none, f32)),
        ("at_end", (u8, f32, none)),
        ("everywhere", (("x", "I8", [0]), u8, none, f32, ("y", "U16", [2, 0]))),
        ("twice_at_one_offset", (u8, none, ("x", "F64", [0]), f32)),
    ):
        about = f"tensors without bytes lie {place.replace('_', ' ')}"
        yield _case(f"zero_size_{place}", "offsets-contiguous", about, laid_out(*tensors))


def _offsets() -> Iterator[Case]:
    first, second, third = tensor("U8", [2], 0, 2), tensor("U8", [3], 2, 5), tensor("U8", [1], 5, 6)
    for name, entries, about in (
        ("order_backwards", (("a", third), ("b", second), ("c", first)), "the header lists the tensors from the last to the first"),
        ("order_mixed", (("a", second), ("b", third), ("c", first)), "the header lists the tensors in an order that is not the data's"),
        ("order_names_backwards", (("c", first), ("b", second), ("a", third)), "names need not be sorted"),
        ("order_zero_size_last", (("a", first), ("b", second), ("c", third), ("z", EMPTY)), "a tensor without bytes at offset 0 is listed last"),
    ):
        yield _case(name, "order", about, padded(table(*entries), pattern(6)))
    for name, dtype, lead in (("f32_at_1", "F32", 1), ("f64_at_3", "F64", 3), ("i16_at_5", "I16", 5), ("c64_at_4", "C64", 4)):
        about = f"a tensor of {dtype} begins at offset {lead}, no multiple of its width"
        yield _case(f"misaligned_{name}", "alignment", about, laid_out(("a", "U8", [lead]), ("b", dtype, [2])))
    about = "the header is not padded, so the data begins at no multiple of eight"
    yield _case("misaligned_data", "alignment", about, file(table(("a", tensor("F32", [1], 0, 4))), pattern(4)))
    twenty = [(f"layer.{i}.weight", "U8", [1]) for i in range(20)]
    yield _case("twenty_tensors", "offsets-contiguous", "twenty tensors of one byte follow each other", laid_out(*twenty))


def _headers() -> Iterator[Case]:
    yield _case("no_tensors", "json", "the smallest file: an empty object", file("{}"))
    yield _case("no_tensors_padded", "strict-padding", "an empty object, padded with spaces to eight bytes", file("{}      "))
    yield _case("no_tensors_inner_space", "json", "white space inside an empty object", file("{ \t\r\n}"))
    for align in (64, 256):
        about = f"the header is padded so that the data begins at byte {align}"
        yield _case(f"aligned_{align}", "strict-padding", about, padded(table(("a", ONE)), b"\x0b", align))
    about = "the header is padded with a thousand spaces"
    yield _case("padding_1000", "strict-padding", about, file(table(("a", ONE)) + " " * 1000, b"\x0b"))
    spaced = '{\n\t"a" : {\r\n "dtype" : "U8" , "shape" : [ 2 ,\t1 ] , "data_offsets" : [ 0 , 2 ] } }'
    yield _case("white_space_inside", "json", "all four kinds of white space stand between tokens", padded(spaced, pattern(2)))
    for name, entry in (
        ("shape_first", '{"shape":[1],"data_offsets":[0,1],"dtype":"U8"}'),
        ("offsets_first", '{"data_offsets":[0,1],"dtype":"U8","shape":[1]}'),
    ):
        about = f"the fields of a tensor come in another order: {name.replace('_', ' ')}"
        yield _case(f"fields_{name}", "tensor-fields", about, padded(table(("a", entry)), b"\x0b"))
    escaped = '{"a":{"\\u0064type":"U8","sh\\u0061pe":[1],"data\\u005foffsets":[0,1]}}'
    yield _case("fields_escaped", "json-strings", "escapes inside field names read as the characters", padded(escaped, b"\x0b"))


def _names() -> Iterator[Case]:
    for name, text, about in (
        ("cyrillic", "слой.вес", "letters of two bytes in a name"),
        ("chinese", "权重.一", "letters of three bytes in a name"),
        ("emoji", "🤗.weight", "a character of four bytes in a name"),
        ("joined_emoji", "👩\u200d🚀", "an emoji of several code points, joined by a zero-width joiner"),
        ("escaped_letters", "\\u0061\\u0062c", "escapes of plain letters in a name"),
        ("escaped_accent", "caf\\u00e9 caf\\u00E9", "hexadecimal digits of an escape in either case"),
        ("escaped_pair", "\\ud83e\\udd17", "a character above U+FFFF, escaped as a surrogate pair"),
        ("escaped_last_pair", "\\uDBFF\\uDFFF", "the last code point, escaped as a surrogate pair"),
        ("escaped_signs", '\\"\\\\\\/', "escaped quote, backslash and slash in a name"),
        ("bidi", "a\u202eb\u2066c", "characters that turn the direction of text; a name, to be escaped when printed"),
        ("zero_width", "a\u200bb\ufeff", "zero-width space and byte order mark inside a name"),
        ("line_separator", "a\u2028b", "a line separator in a name"),
        ("last_code_point", "\U0010ffff", "the last code point, as four bytes"),
        ("noncharacter", "\ufffe\uffff", "code points that are no characters"),
        ("before_surrogates", "\ud7ff\ue000", "the code points on either side of the surrogates"),
        ("space", " ", "a name of one space"),
        ("path", "../../etc/passwd", "a name that looks like a path is only a name"),
        ("field", "dtype", "a tensor named like a field"),
        ("proto", "__proto__", "a name that is special elsewhere"),
        ("metadata_case", "__Metadata__", "not quite the name of the metadata"),
        ("metadata_space", "__metadata__ ", "the name of the metadata and a space"),
        ("markup", "<script>alert(1)</script>", "a name that is markup elsewhere"),
        ("format", "%s%n{0}{}", "a name that is a format elsewhere"),
        ("300", "n" * 300, "a name of 300 bytes"),
    ):
        yield _case(f"name_{name}", "names", about, padded(table((text, ONE)), b"\x0b"))
    for name, left, right, about in (
        ("normal_forms", "é", "e\u0301", "composed and decomposed forms are two names"),
        ("case", "a", "A", "names that differ in case are two names"),
        ("prefix", "a", "a.b", "a name that begins with another"),
        ("lookalikes", "a", "а", "a Latin and a Cyrillic letter are two names"),
    ):
        entries = ((left, tensor("U8", [1], 0, 1)), (right, tensor("U8", [1], 1, 2)))
        yield _case(f"names_{name}", "names", about, padded(table(*entries), pattern(2)))


def _metadata() -> Iterator[Case]:
    for name, value, about in (
        ("empty", "{}", "metadata without entries"),
        ("format", '{"format":"pt"}', "what most files carry"),
        ("several", '{"b":"2","a":"1","c":"3"}', "entries in no order"),
        ("empty_strings", '{"":""}', "an empty key with an empty value"),
        ("unicode", '{"作者":"Zoë 🤗"}', "keys and values of any characters"),
        ("escaped", '{"a\\u0062":"line\\nquote\\" \\ud83e\\udd17"}', "escapes in key and value"),
        ("nul_value", '{"a":"x\\u0000y"}', "an escaped NUL in a value"),
        ("json_value", '{"a":"{\\"b\\":[1,2]}"}', "a value that is JSON text is a string"),
        ("field_names", '{"dtype":"U8","shape":"[1]","data_offsets":"0"}', "keys named like the fields of a tensor"),
        ("named_metadata", '{"__metadata__":"x"}', "a key named like the metadata"),
        ("case_twins", '{"a":"1","A":"2"}', "keys that differ in case are two keys"),
    ):
        yield _case(f"metadata_{name}", "metadata", about, padded(table(("__metadata__", value), ("a", ONE)), b"\x0b"))
    value = '{"format":"pt"}'
    first, second = ("a", tensor("U8", [1], 0, 1)), ("b", tensor("U8", [1], 1, 2))
    for name, entries, data in (
        ("last", (first, ("__metadata__", value)), pattern(1)),
        ("between", (first, ("__metadata__", value), second), pattern(2)),
        ("alone", (("__metadata__", value),), b""),
        ("escaped_name", (("\\u005f_metadata\\u005f_", value), first), pattern(1)),
    ):
        about = f"where the metadata stands does not matter: {name.replace('_', ' ')}"
        yield _case(f"metadata_{name}", "metadata", about, padded(table(*entries), data))


def _data() -> Iterator[Case]:
    bools = padded(table(("a", tensor("BOOL", [4], 0, 4))), b"\x00\x01\x02\xff")
    yield _case("bool_bytes", "bool-values", "truth values of 2 and 255, which only a look at the bytes finds", bools, "Forbidden")
    nans = bytes.fromhex("0000c07f 0100807f ffffffff 000080ff")
    about = "bit patterns of NaN and infinity are kept as they are"
    yield _case("nan_bits", "dtype", about, padded(table(("a", tensor("F32", [4], 0, 16))), nans))
    archive = _archive()
    about = "the last tensor is a zip file, which zip tools find at the end of this one"
    tail = laid_out(("a", "U8", [1]), ("b", "U8", [len(archive)]))
    yield _case("zip_tail", "strict-polyglot", about, tail[: -len(archive)] + archive, "Forbidden")
    about = "the bytes are also a pickle of None that calls nothing"
    stops = padded(table(("N.", ONE)) + " " * (0x558 - len(table(("N.", ONE)))), b"\x0b")
    yield _case("pickle_that_stops", "strict-polyglot", about, stops)
    about = "the bytes are also a pickle that calls a function when it is loaded, here `len`"
    yield _case("pickle_that_calls", "strict-polyglot", about, _calling_pickle(), "Forbidden")


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("hello.txt", (1980, 1, 1, 0, 0, 0))
        info.create_system = 3
        archive.writestr(info, "hello")
    return buffer.getvalue()


def _calling_pickle() -> bytes:
    """A file that pickle reads past its header into the first tensor.

    The length 0x0558 begins with the opcode BINUNICODE, whose string of five bytes ends inside the first
    name. There SHORT_BINSTRINGs of printable length follow each other to the end of the header; the last one ends
    exactly there, and the tensor's bytes are the rest of the pickle.
    """
    header_bytes, hop = 0x558, "U~" + "h" * 126
    payload = b"cbuiltins\nlen\n(U\x03abctR."
    rest = f'":{tensor("U8", [len(payload)], 0, len(payload))}}}'
    n_hops = 10
    name_bytes = header_bytes - 2 - len(rest)
    last = "U" + chr(header_bytes - 2 - n_hops * len(hop) - 2)
    name = hop * n_hops + last
    name += "h" * (name_bytes - len(name))
    return file('{"' + name + rest, payload)


def _made() -> Iterator[Case]:
    yield _case("header_of_the_limit", "header-length", "a header of exactly 100 000 000 bytes", Recipe("padded_header", 100_000_000))
    yield _case("empty_tensors_100000", "offsets-contiguous", "a hundred thousand tensors without bytes", Recipe("empty_tensors", 100_000))
    yield _case("name_1000000", "names", "a name of a million bytes", Recipe("long_name", 1_000_000))
    yield _case("metadata_1000000", "metadata", "a metadata value of a million bytes", Recipe("long_metadata", 1_000_000))
