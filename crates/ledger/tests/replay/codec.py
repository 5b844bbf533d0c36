"""Encodings by schemas of the types: chapter *Conventions* of docs/ledger-format.md."""

from collections import namedtuple


class Codec:
    """Reads and writes postcard by a schema: `uint`, `int`, `bool`, `str`, `bytes N`, list, tuple, option, map, struct, enum."""

    def __init__(self, data=b""):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        if self.at > len(self.data):
            raise ValueError("truncated")
        return self.data[self.at - count : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def read(self, schema):
        kind = schema[0]
        if kind == "uint":
            return self.varint()
        if kind == "int":
            value = self.varint()
            return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
        if kind == "bool":
            return self.take(1) == b"\x01"
        if kind == "str":
            return self.take(self.varint()).decode()
        if kind == "bytes":
            return self.take(schema[1])
        if kind == "list":
            return [self.read(schema[1]) for _ in range(self.varint())]
        if kind == "tuple":
            return tuple(self.read(part) for part in schema[1:])
        if kind == "option":
            return self.read(schema[1]) if self.take(1) == b"\x01" else None
        if kind == "struct":
            return schema[1](*(self.read(part) for part in schema[2]))
        if kind == "enum":
            variant = self.varint()
            return (variant, self.read(schema[1][variant]))
        raise TypeError(kind)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write(schema, value):
    kind = schema[0]
    if kind == "uint":
        return varint(value)
    if kind == "int":
        return varint(2 * value if value >= 0 else -2 * value - 1)
    if kind == "bool":
        return bytes([value])
    if kind == "str":
        return varint(len(value.encode())) + value.encode()
    if kind == "bytes":
        return value
    if kind == "list":
        return varint(len(value)) + b"".join(write(schema[1], item) for item in value)
    if kind == "tuple":
        return b"".join(write(part, item) for part, item in zip(schema[1:], value, strict=True))
    if kind == "option":
        return b"\x00" if value is None else b"\x01" + write(schema[1], value)
    if kind == "struct":
        return b"".join(write(part, item) for part, item in zip(schema[2], value, strict=True))
    if kind == "enum":
        return varint(value[0]) + write(schema[1][value[0]], value[1])
    raise TypeError(kind)


UINT, INT, BOOL, STR, NOTHING = ("uint",), ("int",), ("bool",), ("str",), ("tuple",)
ID, REQUEST = ("bytes", 32), ("bytes", 16)


def struct(title, /, **fields):
    return ("struct", namedtuple(title, fields), tuple(fields.values()))


def make(schema, *values):
    return schema[1](*values)


def signed(schema):
    return struct("Signed", value=schema, signer=ID, signature=("bytes", 64))


def listed(schema):
    return ("list", schema)


def option(schema):
    return ("option", schema)
