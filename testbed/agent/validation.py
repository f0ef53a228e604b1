"""One clear sentence for what does not fit its type: in a configuration file, in a control command.

Class: `Table`. Functions: `read_toml`, `decode_address`, `validation_sentence`. Exception:
`ConfigurationError`.
"""

import difflib
import re
from ipaddress import AddressValueError, IPv6Address, IPv6Network, NetmaskValueError
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class ConfigurationError(Exception):
    """The configuration cannot be used; the text is one sentence that names file and key."""


class Table(Struct, forbid_unknown_fields=True, frozen=True):
    """A TOML table in which every key is known."""


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a file. Raises ConfigurationError that names the file."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None


def decode_address(kind: type, value: Any) -> Any:
    """msgspec's hook for addresses and networks. Raises ValueError, for msgspec to say where."""
    if kind not in (IPv6Address, IPv6Network):
        raise NotImplementedError(f"no conversion to {kind}")
    what = "an IPv6 address" if kind is IPv6Address else "an IPv6 prefix"
    if not isinstance(value, str):
        raise ValueError(f"expected {what} in quotes, not {value!r}")
    try:
        return kind(value)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        detail = ", it has host bits set" if "host bits" in str(error) else ""
        raise ValueError(f"expected {what}, not {value!r}{detail}") from None


_REPLACEMENTS = (
    (r"^Expected `(?:int|float)` >= (\S+)$", r"expected at least \1"),
    (r"^Expected `(?:int|float)` <= (\S+)$", r"expected at most \1"),
    (r"^Expected `(?:int|float)` > (\S+)$", r"expected more than \1"),
    (r"^Expected `int` that's a multiple of (\S+)$", r"expected a multiple of \1"),
    (r"^Expected `array` of length >= 1$", "expected at least one"),
    (r"^Expected `array` of length >= (\S+)$", r"expected at least \1 entries"),
    (r"^Expected `str` matching regex .*$", "expected a name of letters, digits and _.-"),
    (r"^Invalid enum value (.*)$", r"\1 is not known"),
    (r"^Invalid value (.*)$", r"\1 is not known"),
    (r"^Expected (.*), got (.*)$", r"expected \1, not \2"),
)


def validation_sentence(error: msgspec.ValidationError, value: Any, kind: Any) -> str:
    """msgspec's message as "key: what was expected". `value` is what was checked, `kind` as what."""
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    missing = re.match(r"Object missing required field `(.*)`", message)
    if missing:
        return f"{_join(path, missing[1])}: is missing"
    unknown = re.match(r"Object contains unknown field `(.*)`", message)
    if unknown:
        known = _known_keys(kind, value, path)
        near = difflib.get_close_matches(unknown[1], known, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}" if known else ""
        return f"{_join(path, unknown[1])}: is not a known key{hint}"
    given = _value_at(value, path)
    for pattern, replacement in _REPLACEMENTS:
        new, count = re.subn(pattern, replacement, message)
        if count:
            message = _in_words(new)
            break
    else:
        return f"{path}: {message}" if path else message
    choices = _choices(kind, value, path)
    if choices and "is not known" in message:
        message = f"{message}; expected one of {', '.join(choices)}"
    elif given is not None and not isinstance(given, (dict, list)) and ", not" not in message:
        message = f"{message}, not {given!r}"
    return f"{path}: {message}" if path else message


_WORDS = {
    "int": "a number",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "float": "a fraction",
    "bool": "true or false",
    "null": "nothing",
}


def _in_words(message: str) -> str:
    """msgspec's names of types as people call what they write in TOML."""
    message = message.replace("`", "").replace(" | ", " or ")
    return re.sub(rf"\b({'|'.join(_WORDS)})\b", lambda match: _WORDS[match[0]], message)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _steps(path: str) -> list[str | int]:
    return [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path)]


def _value_at(value: Any, path: str) -> Any:
    try:
        for step in _steps(path):
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value


def _type_at(kind: Any, value: Any, path: str) -> Any:
    """msgspec's description of the type that is expected at `path`."""
    info = msgspec.inspect.type_info(kind)
    for step in ["", *_steps(path)]:
        if step != "":
            if isinstance(info, msgspec.inspect.ListType):
                info = info.item_type
            else:
                info = next((f.type for f in getattr(info, "fields", ()) if f.encode_name == step), None)
        if isinstance(info, msgspec.inspect.UnionType):
            info = _alternative(info, value)
    return info


def _alternative(union: msgspec.inspect.UnionType, value: Any) -> Any:
    """Of classes, the one whose tag `value` has; of others, the only one beside None."""
    types = [each for each in union.types if not isinstance(each, msgspec.inspect.NoneType)]
    structs = [each for each in types if isinstance(each, msgspec.inspect.StructType)]
    tagged = [each for each in structs if isinstance(value, dict) and value.get(each.tag_field) == each.tag]
    found = tagged or types
    return found[0] if len(found) == 1 else None


def _known_keys(kind: Any, value: Any, path: str) -> list[str]:
    return [f.encode_name for f in getattr(_type_at(kind, value, path), "fields", ())]


def _choices(kind: Any, value: Any, path: str) -> list[str]:
    info = _type_at(kind, value, path)
    if isinstance(info, msgspec.inspect.LiteralType):
        return [str(v) for v in info.values]
    structs = getattr(msgspec.inspect.type_info(kind), "types", ())
    return [str(t.tag) for t in structs if getattr(t, "tag_field", None) == path]
