"""Files that break one rule of the format, or use what only the strict rules refuse.

Where a strict verdict is given for a file that the reference refuses as well, the strict rules meet something that they forbid
before the fault: a field that has no meaning, or a list or an object where the format has none.
"""

from collections.abc import Iterator

from corpus.case import EMPTY, ONE, Case, Recipe, file, length, padded, pattern, table, tensor

BYTE = b"\x0b"


def cases() -> list[Case]:
    """All of them."""
    parts = (
        _lengths(),
        _utf8(),
        _json(),
        _strings(),
        _depth(),
        _numbers(),
        _duplicates(),
        _strict_duplicates(),
        _metadata(),
        _fields(),
        _dtypes(),
        _shapes(),
        _offsets(),
        _coverage(),
        _strict(),
    )
    return [case for part in parts for case in part]


def _case(name: str, rule: str, about: str, data: bytes | Recipe, strict: str | None = None) -> Case:
    return Case(f"malformed/{name}.safetensors", about, rule, data, strict=strict)


def _lengths() -> Iterator[Case]:
    whole = padded(table(("a", ONE)), BYTE)
    n = len(whole) - 9
    for name, about, data in (
        ("1_byte", "one byte is too few for a header length", b"\x08"),
        ("7_bytes", "the header length is cut in its last byte", whole[:7]),
        ("0", "a header of no bytes is no JSON, whatever follows", length(0) + b"{}"),
        ("1_brace", "a header of one brace is no JSON", length(1) + b"{"),
        ("1_digit", "a header of one digit is no object", length(1) + b"1"),
        ("past_end", "the header length points one byte past the end", length(3) + b"{}"),
        ("only", "the header length is there, the header is not", length(2)),
        ("huge", "the header length is the limit, the file is not that long", length(10**8) + b"{}"),
        ("over_limit", "a header length of one over the limit", length(10**8 + 1) + b"{}"),
        ("2_63", "a header length that is negative as a signed number", length(2**63) + b"{}"),
        ("2_64", "the largest header length there is", length(2**64 - 1) + b"{}"),
        ("wraps", "a header length that wraps to the file's size when 8 is added", length(2**64 - 6) + b"{}"),
        ("big_endian", "a header length in big-endian order", n.to_bytes(8, "big") + whole[8:]),
        ("32_bits", "a header length of four bytes", whole[:4] + whole[8:]),
        ("short_by_1", "the header length leaves out the last brace", length(len(table(("a", ONE))) - 1) + whole[8:]),
        ("long_by_1", "the header length takes in the first byte of the data", length(n + 1) + whole[8:]),
        ("counts_itself", "the header length counts its own eight bytes too", length(n + 8) + whole[8:] + bytes(7)),
        ("none", "JSON without a header length before it", table(("a", ONE)).encode() + BYTE),
    ):
        yield _case(f"length_{name}", "header-length", about, data)


def _utf8() -> Iterator[Case]:
    for name, text, about in (
        ("continuation", b"\x80", "a continuation byte without a first byte"),
        ("latin_1", b"caf\xe9", "a letter of Latin-1"),
        ("overlong_2", b"\xc0\x80", "a NUL in two bytes"),
        ("overlong_slash", b"\xc1\xaf", "a letter in two bytes where one would do"),
        ("overlong_3", b"\xe0\x80\xaf", "a slash in three bytes"),
        ("overlong_4", b"\xf0\x80\x80\xaf", "a slash in four bytes"),
        ("surrogate", b"\xed\xa0\x80", "a high surrogate in three bytes"),
        ("surrogate_pair", b"\xed\xa0\xbe\xed\xb4\x97", "a pair of surrogates in three bytes each"),
        ("above_last", b"\xf4\x90\x80\x80", "a code point above U+10FFFF"),
        ("5_bytes", b"\xf8\x88\x80\x80\x80", "a sequence of five bytes"),
        ("ff", b"\xff", "a byte that never occurs in UTF-8"),
        ("cut_2", b"\xc3", "a sequence of two bytes cut by the closing quote"),
        ("cut_3", b"\xe2\x82", "a sequence of three bytes cut by the closing quote"),
        ("cut_4", b"\xf0\x9f\xa4", "a sequence of four bytes cut by the closing quote"),
        ("cut_by_letter", b"\xe2a\x82", "a sequence of three bytes with a letter inside"),
    ):
        data = file(table(("@", ONE)).encode().replace(b"@", text), BYTE)
        yield _case(f"utf8_{name}", "utf-8", f"{about}, in a name", data)
    value = table(("__metadata__", '{"a":"@"}')).encode().replace(b"@", b"\xfe")
    yield _case("utf8_metadata", "utf-8", "a byte that never occurs in UTF-8, in a metadata value", file(value))
    yield _case("utf8_utf16_mark", "utf-8", "a header in UTF-16 with its byte order mark", file("{}".encode("utf-16-le").join((b"\xff\xfe", b""))))
    yield _case("utf8_utf16", "json", "a header in UTF-16 without a mark reads as NULs", file("{}".encode("utf-16-le")))
    yield _case("utf8_mark", "utf-8", "a byte order mark before the header is no white space", file("\ufeff" + table(("a", ONE)), BYTE))


def _json() -> Iterator[Case]:
    body, rest = ONE[:-1], BYTE
    one = table(("a", ONE))
    for name, text, about in (
        ("array", "[]", "the header is an array"),
        ("array_of_parts", "[null,{}]", "the header is an array with the parts of a header"),
        ("string", '"a"', "the header is a string"),
        ("number", "12", "the header is a number"),
        ("null", "null", "the header is null"),
        ("true", "true", "the header is a truth value"),
        ("spaces", "        ", "the header is spaces only"),
        ("not_closed", one[:-1], "the header's object is not closed"),
        ("name_not_closed", '{"a', "a name is not closed"),
        ("key_only", '{"a"}', "a name without a value"),
        ("no_value", '{"a":}', "a colon without a value"),
        ("no_colon", f'{{"a"{ONE}}}', "the colon after a name is missing"),
        ("no_comma", f'{{"a":{ONE}"b":{EMPTY}}}', "the comma between two tensors is missing"),
        ("two_commas", f'{{"a":{ONE},,"b":{EMPTY}}}', "two commas between two tensors"),
        ("trailing_comma", f'{{"a":{ONE},}}', "a comma after the last tensor"),
        ("trailing_comma_inside", f'{{"a":{body},}}}}', "a comma after the last field"),
        ("trailing_comma_shape", one.replace("[1]", "[1,]"), "a comma after the last dimension"),
        ("leading_comma", f'{{,"a":{ONE}}}', "a comma before the first tensor"),
        ("single_quotes", one.replace('"', "'"), "single quotes, as Python prints"),
        ("bare_name", f"{{a:{ONE}}}", "a name without quotes"),
        ("comment", f'{{/* */"a":{ONE}}}', "a comment"),
        ("line_comment", f'{{"a":{ONE}//\n}}', "a comment to the end of the line"),
        ("wrong_bracket", one[:-1] + "]", "an object closed by a bracket"),
        ("shape_not_closed", one.replace("[1],", "[1,"), "a shape that is not closed"),
        ("form_feed", "{\f}", "a form feed is no white space"),
        ("no_break_space", "{\u00a0}", "a no-break space is no white space"),
        ("text_after", one + "x", "a letter after the closing brace"),
        ("brace_after", one + "}", "one closing brace too many"),
        ("object_after", one + "{}", "a second object after the first"),
        ("nul_after", one + "\0\0\0", "NULs as padding"),
        ("form_feed_after", one + "\f", "a form feed as padding"),
        ("comma_after", one + ",", "a comma after the closing brace"),
        ("vertical_tab_before", "\v" + one, "a vertical tab before the header"),
        ("nul_before", "\0" + one, "a NUL before the header"),
    ):
        yield _case(f"json_{name}", "json", about, file(text, rest if ONE in text or "U8" in text else b""))
    for name, value, about in (
        ("nan", "NaN", "NaN is no JSON"),
        ("infinity", "-Infinity", "-Infinity is no JSON"),
        ("true_cut", "tru", "a literal that is cut"),
        ("literal_upper_case", "True", "a truth value in Python's spelling"),
    ):
        about = f"{about}, in a field that has no meaning"
        yield _case(f"json_{name}", "json", about, file(table(("a", extra(value))), BYTE), "Forbidden")


def _strings() -> Iterator[Case]:
    for name, text, about in (
        ("raw_newline", "a\nb", "a line feed that is not escaped"),
        ("raw_tab", "a\tb", "a tab that is not escaped"),
        ("raw_nul", "a\0b", "a NUL that is not escaped"),
        ("raw_escape", "a\x1b[31m", "an ESC that is not escaped"),
        ("raw_unit_separator", "a\x1fb", "the last control character below the space, not escaped"),
        ("escape_x", "\\x41", "an escape that JSON does not have"),
        ("escape_quote", "\\'", "an escaped single quote"),
        ("escape_upper_case", "\\U0041", "an escape with a capital U"),
        ("escape_short", "\\u41", "an escape with two digits"),
        ("escape_not_hexadecimal", "\\u00g1", "an escape with a letter that is no digit"),
        ("escape_sign", "\\u+041", "an escape with a sign"),
        ("lone_high_surrogate", "\\ud83e", "a high surrogate alone"),
        ("lone_low_surrogate", "\\udd17", "a low surrogate alone"),
        ("swapped_surrogates", "\\udd17\\ud83e", "a pair of surrogates in the wrong order"),
        ("two_high_surrogates", "\\ud83e\\ud83e", "two high surrogates"),
        ("high_surrogate_letter", "\\ud83ea", "a high surrogate and a letter"),
        ("high_surrogate_newline", "\\ud83e\\n", "a high surrogate and another escape"),
        ("high_surrogate_basic", "\\ud83e\\u0041", "a high surrogate and an escaped letter"),
    ):
        yield _case(f"string_{name}", "json-strings", f"{about}, in a name", file(table((text, ONE)), BYTE))
    yield _case("string_cut_escape", "json-strings", "the header ends inside an escape", file('{"a\\'))
    yield _case("string_raw_newline_value", "json-strings", "a line feed that is not escaped, in a metadata value", file('{"__metadata__":{"a":"\n"}}'))
    yield _case("string_lone_surrogate_value", "json-strings", "a high surrogate alone, in a metadata value", file('{"__metadata__":{"a":"\\ud800"}}'))
    yield _case(
        "string_lone_surrogate_extra",
        "json-strings",
        "a high surrogate alone, in a field that has no meaning",
        file(table(("a", extra('"\\ud800"'))), BYTE),
        "Forbidden",
    )


def extra(value: str) -> str:
    """The tensor of one byte with one more field, which has no meaning."""
    return f'{ONE[:-1]},"x":{value}}}'


def _depth() -> Iterator[Case]:
    for depth in (127, 128, 129, 200, 1500):
        inner = depth - 2
        about = f"lists nest {depth} deep, in a field that has no meaning"
        text = table(("a", extra("[" * inner + "]" * inner)))
        yield _case(f"depth_{depth}", "json-depth", about, file(text, BYTE), "Forbidden")
    for depth in (127, 128):
        inner = depth - 2
        about = f"objects nest {depth} deep, in a field that has no meaning"
        text = table(("a", extra('{"":' * (inner - 1) + "{}" + "}" * (inner - 1))))
        yield _case(f"depth_objects_{depth}", "json-depth", about, file(text, BYTE), "Forbidden")
    yield _case("depth_not_closed", "json-depth", "two thousand lists are opened and none closed", file('{"a":' + "[" * 2000), "Forbidden")


def _numbers() -> Iterator[Case]:
    for name, number, about in (
        ("float", "1.0", "a dimension with a fraction of zero"),
        ("exponent", "1e0", "a dimension with an exponent"),
        ("leading_zero", "01", "a dimension with a leading zero"),
        ("minus_zero", "-0", "a dimension of minus zero"),
        ("negative", "-1", "a negative dimension"),
        ("plus", "+1", "a dimension with a plus sign"),
        ("point_only", "1.", "a dimension that ends with its point"),
        ("point_first", ".5", "a dimension that begins with its point"),
        ("hexadecimal", "0x1", "a dimension in hexadecimal digits"),
        ("underscore", "1_0", "a dimension with an underscore"),
        ("minus_only", "-", "a dimension that is a sign alone"),
        ("2_64", str(2**64), "a dimension of 2^64"),
        ("30_digits", "1" * 30, "a dimension of thirty digits"),
        ("string", '"1"', "a dimension that is a string"),
        ("null", "null", "a dimension that is null"),
        ("true", "true", "a dimension that is a truth value"),
        ("list", "[1]", "a dimension that is a list"),
    ):
        data = file(table(("a", ONE.replace("[1]", f"[{number}]"))), BYTE)
        yield _case(f"number_{name}", "json-numbers", about, data)
    for name, offsets, about in (
        ("float", "0,1.0", "an offset with a fraction of zero"),
        ("exponent", "0,1e0", "an offset with an exponent"),
        ("minus_zero", "-0,1", "an offset of minus zero"),
        ("negative", "-1,0", "a negative offset"),
        ("leading_zero", "00,1", "an offset with a leading zero"),
        ("2_64", f"0,{2**64}", "an offset of 2^64"),
        ("string", '0,"1"', "an offset that is a string"),
        ("null", "0,null", "an offset that is null"),
    ):
        data = file(table(("a", ONE.replace("[0,1]", f"[{offsets}]"))), BYTE)
        yield _case(f"offset_{name}", "json-numbers", about, data)
    for name, number, about in (
        ("too_large", "1e400", "a number that no double can hold, in a field that has no meaning"),
        ("400_digits", "1" * 400, "an integer that no double can hold, in a field that has no meaning"),
        ("leading_zero", "01", "a leading zero, in a field that has no meaning"),
        ("tiny", "1e-400", "a number that rounds to zero, in a field that has no meaning"),
        ("minus_zero", "-0", "minus zero, in a field that has no meaning"),
        ("float", "-1.5E+3", "a fraction with an exponent, in a field that has no meaning"),
    ):
        data = file(table(("a", extra(number))), BYTE)
        yield _case(f"extra_number_{name}", "json-numbers", about, data, "Forbidden")


def _duplicates() -> Iterator[Case]:
    two = tensor("U8", [2], 0, 2)
    for name, entries, data, about in (
        ("same", (("a", ONE), ("a", ONE)), BYTE, "a tensor stands twice, the same both times"),
        ("differ", (("a", two), ("a", ONE)), BYTE, "a tensor stands twice with two shapes; the last one fits the data"),
        ("dtype", (("a", ONE), ("a", tensor("I8", [1], 0, 1))), BYTE, "a tensor stands twice with two dtypes"),
        ("apart", (("a", ONE), ("b", tensor("U8", [1], 1, 2)), ("a", ONE)), BYTE * 2, "a tensor stands twice, with another between"),
        ("three_times", (("a", EMPTY),) * 3, b"", "a tensor stands three times"),
        ("escaped", (("a", ONE), ("\\u0061", ONE)), BYTE, "a name stands twice, once as an escape"),
        ("escaped_digits", (("\\u00e9", ONE), ("\\u00E9", ONE)), BYTE, "a name stands twice, with escapes in either case"),
        ("emoji", (("🤗", ONE), ("\\ud83e\\udd17", ONE)), BYTE, "a name stands twice, once as a pair of surrogates"),
        ("empty_tensor", (("a", EMPTY), ("b", ONE), ("a", EMPTY)), BYTE, "a tensor without bytes stands twice"),
    ):
        case = _case(f"duplicate_name_{name}", "duplicate-names", about, file(table(*entries), data))
        yield Case(case.file, case.about, case.rule, case.data, compatible="DuplicateTensor")
    for name, text, about in (
        ("dtype", '{"dtype":"U8","shape":[1],"data_offsets":[0,1],"dtype":"U8"}', "the dtype stands twice"),
        ("shape", '{"shape":[9],"dtype":"U8","shape":[1],"data_offsets":[0,1]}', "the shape stands twice"),
        ("offsets", '{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}', "the offsets stand twice"),
        ("escaped", '{"dtype":"U8","shape":[1],"data_offsets":[0,1],"\\u0064type":"U8"}', "the dtype stands twice, once as an escape"),
    ):
        yield _case(f"duplicate_field_{name}", "duplicate-fields", about, file(table(("a", text)), BYTE))
    for name, entries, about in (
        ("same", (("__metadata__", "{}"), ("__metadata__", "{}")), "the metadata stands twice"),
        ("null", (("__metadata__", "{}"), ("__metadata__", "null")), "the metadata stands twice, once as null"),
        ("escaped", (("__metadata__", "{}"), ("\\u005f_metadata__", "{}")), "the metadata stands twice, once as an escape"),
    ):
        yield _case(f"duplicate_metadata_{name}", "duplicate-fields", about, file(table(*entries)))


def _strict_duplicates() -> Iterator[Case]:
    for name, value, about in (
        ("differ", '{"a":"1","a":"2"}', "a key of the metadata stands twice; the last value counts"),
        ("same", '{"a":"1","a":"1"}', "a key of the metadata stands twice with one value"),
        ("escaped", '{"a":"1","b":"2","\\u0061":"3"}', "a key of the metadata stands twice, once as an escape"),
    ):
        text = table(("__metadata__", value), ("a", ONE))
        yield _case(f"metadata_duplicate_{name}", "strict-metadata", about, file(text, BYTE), "DuplicateKey")


def _metadata() -> Iterator[Case]:
    yield _case("metadata_null", "strict-metadata", "the metadata is null", file(table(("__metadata__", "null"), ("a", ONE)), BYTE), "Forbidden")
    for name, value, about in (
        ("string", '"pt"', "the metadata is a string"),
        ("list", "[]", "the metadata is a list"),
        ("pairs", '[["a","b"]]', "the metadata is a list of pairs"),
        ("number", "1", "the metadata is a number"),
        ("false", "false", "the metadata is a truth value"),
        ("value_null", '{"a":null}', "a value of the metadata is null"),
        ("value_number", '{"a":1}', "a value of the metadata is a number"),
        ("value_true", '{"a":true}', "a value of the metadata is a truth value"),
        ("value_list", '{"a":["b"]}', "a value of the metadata is a list"),
        ("value_object", '{"a":{"b":"c"}}', "a value of the metadata is an object"),
        ("tensor", ONE, "the metadata is written like a tensor"),
        ("key_number", '{1:"a"}', "a key of the metadata is a number"),
    ):
        text = table(("__metadata__", value), ("a", ONE))
        yield _case(f"metadata_{name}", "metadata", about, file(text, BYTE))


def _fields() -> Iterator[Case]:
    for name, text, about in (
        ("no_dtype", '{"shape":[1],"data_offsets":[0,1]}', "a tensor without a dtype"),
        ("no_shape", '{"dtype":"U8","data_offsets":[0,1]}', "a tensor without a shape"),
        ("no_offsets", '{"dtype":"U8","shape":[1]}', "a tensor without offsets"),
        ("none", "{}", "a tensor without fields"),
        ("null", "null", "null in the place of a tensor"),
        ("string", '"U8"', "a string in the place of a tensor"),
        ("number", "0", "a number in the place of a tensor"),
        ("offsets_1", ONE.replace("[0,1]", "[0]"), "one offset"),
        ("offsets_3", ONE.replace("[0,1]", "[0,1,1]"), "three offsets"),
        ("offsets_0", ONE.replace("[0,1]", "[]"), "no offsets in the list"),
        ("offsets_null", ONE.replace("[0,1]", "null"), "offsets that are null"),
        ("offsets_object", ONE.replace("[0,1]", '{"0":0,"1":1}'), "offsets as an object"),
        ("offsets_string", ONE.replace("[0,1]", '"0,1"'), "offsets as a string"),
        ("offsets_number", ONE.replace("[0,1]", "0"), "offsets as one number"),
    ):
        yield _case(f"tensor_{name}", "tensor-fields", about, file(table(("a", text)), BYTE))
    for name, text, about in (
        ("nested", f'{{"b":{ONE}}}', "tensors nested by module"),
        ("upper_case", ONE.replace("dtype", "Dtype"), "a field's name with a capital"),
        ("offsets_misnamed", ONE.replace("data_offsets", "offsets"), "offsets under another name"),
        ("numbered", '{"0":"U8","1":[1],"2":[0,1]}', "fields under their numbers"),
        ("array_short", '["U8",[1]]', "a tensor as a list of two values"),
        ("array_long", '["U8",[1],[0,1],0]', "a tensor as a list of four values"),
        ("array_order", '[[1],"U8",[0,1]]', "a tensor as a list in another order"),
        ("array_empty", "[]", "a tensor as an empty list"),
    ):
        yield _case(f"tensor_{name}", "tensor-fields", about, file(table(("a", text)), BYTE), "Forbidden")
    array, other = '["U8",[1],[0,1]]', tensor("U8", [1], 1, 2)
    for name, entries, data, about in (
        ("array", (("a", array),), BYTE, "a tensor as a list of its three values"),
        ("array_and_object", (("a", array), ("b", other)), BYTE * 2, "one tensor as a list, one as an object"),
        ("extra", (("a", extra('"y"')),), BYTE, "a tensor with a field that has no meaning"),
        ("extra_null", (("a", extra("null")),), BYTE, "a tensor with a field that has no meaning, null"),
        ("extra_object", (("a", extra('{"y":[1,{}]}')),), BYTE, "a tensor with a nested field that has no meaning"),
        ("extra_twice", (("a", ONE[:-1] + ',"x":1,"x":2}'),), BYTE, "a field that has no meaning stands twice"),
        ("extra_empty_name", (("a", ONE[:-1] + ',"":1}'),), BYTE, "a field with an empty name"),
        ("extra_first", (("a", '{"x":1,' + ONE[1:]),), BYTE, "a field that has no meaning comes first"),
    ):
        yield _case(f"tensor_{name}", "strict-fields", about, file(table(*entries), data), "Forbidden")


def _dtypes() -> Iterator[Case]:
    for name, dtype, about in (
        ("lower_case", '"u8"', "a dtype in lower case"),
        ("mixed_case", '"bF16"', "a dtype in mixed case"),
        ("unknown", '"F128"', "a dtype that the format does not have"),
        ("i4", '"I4"', "four-bit integers, which the format does not have"),
        ("u1", '"U1"', "single bits, which the format does not have"),
        ("f8", '"F8"', "an eight-bit float of no stated kind"),
        ("c128", '"C128"', "complex numbers of two doubles, which the format does not have"),
        ("torch", '"uint8"', "a dtype by PyTorch's name"),
        ("numpy", '"|u1"', "a dtype by NumPy's code"),
        ("space", '"U8 "', "a dtype with a space after it"),
        ("empty", '""', "an empty dtype"),
        ("null", "null", "a dtype that is null"),
        ("number", "4", "a dtype by its number"),
        ("list", '["U8"]', "a dtype in a list"),
        ("map_unknown", '{"F128":null}', "an unknown dtype as the key of an object"),
        ("map_value", '{"U8":1}', "a dtype as the key of an object, with a value"),
        ("map_object", '{"U8":{}}', "a dtype as the key of an object, with an object"),
        ("map_two", '{"U8":null,"I8":null}', "two dtypes as keys of an object"),
        ("map_empty", "{}", "a dtype that is an empty object"),
    ):
        data = file(table(("a", ONE.replace('"U8"', dtype))), BYTE)
        yield _case(f"dtype_{name}", "dtype", about, data, "Forbidden" if name.startswith("map") else None)
    data = file(table(("a", ONE.replace('"U8"', '{"U8":null}'))), BYTE)
    yield _case("dtype_map", "strict-fields", "a dtype as the key of an object, with null", data, "Forbidden")


def _shapes() -> Iterator[Case]:
    for name, shape in (("null", "null"), ("string", '"1"'), ("object", "{}"), ("number", "1"), ("empty_string", '""')):
        data = file(table(("a", ONE.replace("[1]", shape))), BYTE)
        yield _case(f"shape_{name}", "shape", f"a shape that is no list: {name.replace('_', ' ')}", data)
    for name, dtype, dims, about in (
        ("product", "U8", [2**32, 2**32], "two dimensions whose product is 2^64"),
        ("product_wraps_to_1", "U8", [2**32 + 1, 2**32 - 1, 2**64 - 1], "dimensions whose product wraps to 1"),
        ("zero_last", "U8", [2**63, 4, 0], "dimensions whose product passes 2^64 before a 0 comes"),
        ("largest_twice", "U8", [2**64 - 1, 2**64 - 1], "the largest dimension there is, twice"),
        ("bits_u8", "U8", [2**61], "as many bytes as wrap to no bits"),
        ("bits_f64", "F64", [2**58], "as many doubles as wrap to no bits"),
        ("bits_f4", "F4", [2**62], "as many four-bit elements as wrap to no bits"),
        ("bits_f6", "F6_E2M3", [2**63], "as many six-bit elements as wrap to no bits"),
        ("bits_largest", "U8", [2**64 - 1], "the largest count of bytes there is, as bits"),
    ):
        yield _case(f"overflow_{name}", "overflow", about, file(table(("a", tensor(dtype, dims, 0, 0)))))
    for name, dtype, dims, n_bytes, about in (
        ("f4_1", "F4", [1], 1, "one element of four bits"),
        ("f4_rank_0", "F4", [], 1, "one element of four bits, without dimensions"),
        ("f4_3", "F4", [3], 2, "three elements of four bits"),
        ("f4_3x3", "F4", [3, 3], 5, "nine elements of four bits"),
        ("f6_e2m3_1", "F6_E2M3", [1], 1, "one element of six bits"),
        ("f6_e2m3_2", "F6_E2M3", [2], 2, "two elements of six bits"),
        ("f6_e3m2_3", "F6_E3M2", [3], 3, "three elements of six bits"),
        ("f6_e3m2_5", "F6_E3M2", [5], 4, "five elements of six bits"),
    ):
        data = file(table(("a", tensor(dtype, dims, 0, n_bytes))), pattern(n_bytes))
        yield _case(f"sub_byte_{name}", "sub-byte", f"{about} end inside a byte", data)
    for name, dtype, dims, n_bytes, about in (
        ("short_by_1", "U8", [3], 2, "one byte too few for the shape"),
        ("long_by_1", "U8", [1], 2, "one byte too many for the shape"),
        ("f32_as_bytes", "F32", [4], 4, "a float in one byte"),
        ("f32_short", "F32", [2], 7, "the last float lacks a byte"),
        ("rank_0_empty", "F32", [], 0, "an element without dimensions takes bytes"),
        ("zero_with_bytes", "F32", [0], 4, "a vector of length 0 takes no bytes"),
        ("f4_unpacked", "F4", [2], 2, "four-bit elements in a byte each"),
        ("f6_unpacked", "F6_E2M3", [4], 4, "six-bit elements in a byte each"),
        ("c64_as_f32", "C64", [1], 4, "a complex number takes eight bytes"),
        ("2_53", "U8", [2**53 + 1], 1, "a dimension that a double cannot hold"),
    ):
        data = file(table(("a", tensor(dtype, dims, 0, n_bytes))), pattern(n_bytes))
        yield _case(f"size_{name}", "size", about, data)


def _offsets() -> Iterator[Case]:
    for name, ranges, n_bytes, about in (
        ("hole_at_start", ((1, 2),), 2, "the first tensor does not begin at 0"),
        ("hole_between", ((0, 1), (2, 3)), 3, "a byte between two tensors belongs to neither"),
        ("hole_before_empty", ((0, 1), (2, 2)), 2, "a tensor without bytes lies behind a hole"),
        ("overlap", ((0, 2), (1, 3)), 3, "two tensors share a byte"),
        ("shared", ((0, 2), (0, 2)), 2, "two tensors share all their bytes"),
        ("inside", ((0, 4), (1, 3)), 4, "a tensor lies inside another"),
        ("same_begin", ((0, 2), (0, 3)), 3, "two tensors begin at one offset"),
        ("empty_inside", ((0, 4), (2, 2)), 4, "a tensor without bytes lies inside another"),
        ("empty_past_end", ((0, 1), (9, 9)), 1, "a tensor without bytes lies past the end"),
        ("absolute", ((66, 67),), 1, "offsets that count from the start of the file"),
        ("begin_largest", ((2**64 - 1, 2**64 - 1),), 0, "a tensor without bytes at the largest offset there is"),
    ):
        entries = [(chr(ord("a") + i), tensor("U8", [end - begin], begin, end)) for i, (begin, end) in enumerate(ranges)]
        yield _case(f"offsets_{name}", "offsets-contiguous", about, file(table(*entries), pattern(n_bytes)))
    for name, begin, end, about in (
        ("swapped", 1, 0, "a tensor ends before it begins"),
        ("swapped_far", 2**64 - 1, 0, "a tensor ends far before it begins"),
    ):
        yield _case(f"offsets_{name}", "offsets-contiguous", about, file(table(("a", tensor("U8", [1], begin, end))), BYTE))
    second = tensor("U8", [1], 4, 3)
    text = table(("a", tensor("U8", [4], 0, 4)), ("b", second))
    yield _case("offsets_swapped_second", "offsets-contiguous", "the second tensor ends before it begins", file(text, pattern(4)))


def _coverage() -> Iterator[Case]:
    text = table(("a", tensor("F32", [2], 0, 8)), ("b", tensor("U8", [3], 8, 11)))
    whole = padded(text, pattern(11))
    n_head = len(whole) - 11
    for name, data, about in (
        ("short_by_1", whole[:-1], "the last byte is missing"),
        ("short_in_first", whole[: n_head + 3], "the file ends inside the first tensor"),
        ("no_data", whole[:n_head], "the file ends with its header"),
        ("long_by_1", whole + b"\0", "one byte follows the last tensor"),
        ("newline_after", whole + b"\n", "a line feed follows the last tensor"),
        ("twice", whole + whole, "the file stands twice, one after the other"),
        ("data_without_tensors", file("{}", b"\0"), "a byte that belongs to no tensor, in a file without tensors"),
        ("data_beside_empty", file(table(("a", EMPTY)), b"\0"), "a byte beside a tensor that has none"),
        ("padding_after", whole + bytes(-len(whole) % 64), "zeros fill the file to a multiple of 64"),
    ):
        yield _case(f"coverage_{name}", "coverage", about, data)
    for name, end in (("2_40", 2**40), ("2_53", 2**53 + 1), ("2_60", 2**60)):
        data = file(table(("a", tensor("U8", [end], 0, end))), BYTE)
        yield _case(f"coverage_{name}", "coverage", f"a tensor of {end} bytes, of which one is there", data)
    for name, stop, about in (
        ("in_header", 40, "the file ends inside the header"),
        ("after_length", 8, "the file ends after the header length"),
        ("in_length", 5, "the file ends inside the header length"),
        ("in_padding", n_head - 1, "the file ends inside the header's padding"),
    ):
        yield _case(f"truncated_{name}", "header-length", about, whole[:stop])


def _strict() -> Iterator[Case]:
    one = table(("a", ONE))
    for name, lead in (("space", " "), ("spaces", "       "), ("newline", "\n"), ("tab", "\t"), ("return", "\r")):
        about = f"white space before the header: {name}"
        yield _case(f"start_{name}", "strict-start", about, file(lead + one, BYTE), "Forbidden")
    for name, tail in (("newline", "\n"), ("tab", "\t"), ("return", "\r\n"), ("newline_inside", "   \n   ")):
        about = f"white space other than spaces after the header: {name.replace('_', ' ')}"
        yield _case(f"padding_{name}", "strict-padding", about, file(one + tail, BYTE), "Forbidden")
    for name, text, about in (
        ("empty", "", "an empty name"),
        ("nul", "a\\u0000b", "an escaped NUL in a name"),
        ("only_nul", "\\u0000", "a name of one NUL"),
        ("newline", "a\\nb", "an escaped line feed in a name"),
        ("tab", "a\\tb", "an escaped tab in a name"),
        ("backspace", "a\\b\\f\\r", "escaped backspace, form feed and carriage return in a name"),
        ("terminal", "\\u001b[2J", "a command to the terminal in a name"),
        ("delete", "a\x7fb", "a DEL in a name"),
        ("next_line", "a\u0085b", "a control character above ASCII in a name"),
        ("c1_terminal", "\u009b2J", "a command to the terminal in one character above ASCII"),
    ):
        yield _case(f"name_{name}", "strict-names", about, file(table((text, ONE)), BYTE), "Forbidden")
    yield _case("zip_length", "strict-polyglot", "a header length whose bytes begin a zip", Recipe("padded_header", 0x04034B50), "Forbidden")
