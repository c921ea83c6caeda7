"""A second reader of LUKS2 volume files, written from the LUKS2 format description and from nothing of this project.

It parses the header by itself and does its cryptography with the Python package `cryptography` and hashlib, so that what it
and the product agree on is the format. A key comes as a file of 64 raw bytes.

  luks2.py describe FILE                   both header copies and the parsed metadata, as JSON
  luks2.py check-key FILE KEY              exit status 0 if the header's digest is this key's, 1 if not
  luks2.py read FILE KEY OFFSET LENGTH     decrypts to standard output; OFFSET and LENGTH are multiples of 512
  luks2.py write FILE KEY OFFSET           encrypts whole sectors from standard input into the file
"""

import base64
import hashlib
import json
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BINARY = struct.Struct(">6sHQQ48s32s64s40s48sQ184x64s")
MAGIC = {"primary": b"LUKS\xba\xbe", "secondary": b"SKUL\xba\xbe"}


def text(field):
    return field.split(b"\0", 1)[0].decode("utf-8")


def parse_copy(data, offset, which):
    """One header copy as a dictionary; raises ValueError with the reason if it is not valid."""
    binary = data[offset : offset + 4096]
    if len(binary) < 4096:
        raise ValueError("file ends inside the header")
    magic, version, size, seqid, label, algorithm, _salt, uuid, subsystem, place, checksum = BINARY.unpack(binary[:512])
    if magic != MAGIC[which] or version != 2:
        raise ValueError("not a LUKS2 header copy")
    if place != offset:
        raise ValueError(f"says that it lies at {place}, lies at {offset}")
    if size < 16384 or size > 4194304 or size & (size - 1):
        raise ValueError(f"header size {size}")
    whole = bytearray(data[offset : offset + size])
    if len(whole) != size:
        raise ValueError("file ends inside the header")
    whole[448:512] = bytes(64)
    digest = hashlib.new(text(algorithm), whole).digest()
    if checksum[: len(digest)] != digest or any(checksum[len(digest) :]):
        raise ValueError("checksum differs")
    if any(binary[512:]):
        raise ValueError("padding is not zero")
    area = bytes(whole[4096:])
    metadata = json.loads(area.split(b"\0", 1)[0])
    return {
        "seqid": seqid,
        "size": size,
        "label": text(label),
        "uuid": text(uuid),
        "subsystem": text(subsystem),
        "checksum_algorithm": text(algorithm),
        "metadata": metadata,
    }


def parse(path):
    with open(path, "rb") as file:
        data = file.read(8 * 1024 * 1024)
    answer = {}
    try:
        answer["primary"] = parse_copy(data, 0, "primary")
        second = answer["primary"]["size"]
    except ValueError as error:
        answer["primary_error"] = str(error)
        sizes = [16384 << shift for shift in range(9)]
        second = next((size for size in sizes if data[size : size + 6] == MAGIC["secondary"]), 16384)
    try:
        answer["secondary"] = parse_copy(data, second, "secondary")
    except ValueError as error:
        answer["secondary_error"] = str(error)
    copies = [answer[name] for name in ("primary", "secondary") if name in answer]
    if not copies:
        raise SystemExit(f"no valid header copy: {answer}")
    answer["current"] = max(copies, key=lambda copy: copy["seqid"])
    return answer


def only(mapping, what):
    if len(mapping) != 1:
        raise SystemExit(f"{len(mapping)} {what}, expected one")
    return next(iter(mapping.values()))


class Segment:
    def __init__(self, path, key):
        segment = only(parse(path)["current"]["metadata"]["segments"], "segments")
        if segment["type"] != "crypt" or segment["encryption"] != "aes-xts-plain64":
            raise SystemExit(f"segment {segment['type']} {segment.get('encryption')}")
        self.offset = int(segment["offset"])
        self.sector = int(segment["sector_size"])
        self.first_tweak = int(segment["iv_tweak"])
        self.key = key

    def cipher(self, sector_index):
        # plain64: the number of the 512-byte unit at which the sector starts, 64 bits, little-endian, then zeros.
        unit = self.first_tweak + sector_index * (self.sector // 512)
        tweak = struct.pack("<Q", unit % 2**64) + bytes(8)
        return Cipher(algorithms.AES(self.key), modes.XTS(tweak))


def read(path, key, offset, length):
    segment = Segment(path, key)
    first, last = offset // segment.sector, -(-(offset + length) // segment.sector)
    plain = bytearray()
    with open(path, "rb") as file:
        for index in range(first, last):
            file.seek(segment.offset + index * segment.sector)
            stored = file.read(segment.sector)
            if len(stored) != segment.sector:
                raise SystemExit(f"the file ends inside sector {index}")
            decryptor = segment.cipher(index).decryptor()
            plain += decryptor.update(stored) + decryptor.finalize()
    start = offset - first * segment.sector
    sys.stdout.buffer.write(plain[start : start + length])


def write(path, key, offset):
    segment = Segment(path, key)
    plain = sys.stdin.buffer.read()
    if offset % segment.sector or len(plain) % segment.sector:
        raise SystemExit("only whole sectors can be written")
    with open(path, "r+b") as file:
        for start in range(0, len(plain), segment.sector):
            encryptor = segment.cipher((offset + start) // segment.sector).encryptor()
            file.seek(segment.offset + offset + start)
            file.write(encryptor.update(plain[start : start + segment.sector]) + encryptor.finalize())


def check_key(path, key):
    digest = only(parse(path)["current"]["metadata"]["digests"], "digests")
    if digest["type"] != "pbkdf2":
        raise SystemExit(f"digest of type {digest['type']}")
    expected = base64.b64decode(digest["digest"])
    found = hashlib.pbkdf2_hmac(
        digest["hash"], key, base64.b64decode(digest["salt"]), int(digest["iterations"]), len(expected)
    )
    sys.exit(0 if found == expected else 1)


def key_of(path):
    with open(path, "rb") as file:
        key = file.read()
    if len(key) != 64:
        raise SystemExit(f"a key of {len(key)} bytes, expected 64")
    return key


def main(arguments):
    match arguments:
        case ["describe", path]:
            json.dump(parse(path), sys.stdout)
        case ["check-key", path, key]:
            check_key(path, key_of(key))
        case ["read", path, key, offset, length]:
            read(path, key_of(key), int(offset), int(length))
        case ["write", path, key, offset]:
            write(path, key_of(key), int(offset))
        case _:
            raise SystemExit(__doc__)


main(sys.argv[1:])
