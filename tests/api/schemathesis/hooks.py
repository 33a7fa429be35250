"""What schemathesis may try, where the document allows more than is wise or than one parameter can say.

The document stays as it is: these are the tool's manners. It is kept from waiting for minutes, from settings
that would change the node under it, and from stopping the node.
"""

import schemathesis
from hypothesis import strategies as st

number = st.integers
field = st.sampled_from(["*", "*/2", "0", "1,3", "1-5"])
day = st.sampled_from(["*", "MON-FRI", "SUN", "1-5", "5#2", "FRIL"])
month = st.sampled_from(["*", "JAN", "3-9", "*/4"])
zone = st.sampled_from(["", " Europe/Berlin", " UTC", " America/New_York"])
cron = st.one_of(
    st.builds("{} {} {} {} {}{}".format, field, field, st.sampled_from(["*", "1", "L", "15W"]), month, day, zone),
    st.builds("{} {} {} * * *{}".format, field, field, field, zone),
    st.builds("@{}{}".format, st.sampled_from(["hourly", "daily", "weekly", "monthly", "yearly"]), zone),
    st.builds("every {}{}".format, number(1, 300), st.sampled_from(["s", "m", "h"])),
)
schemathesis.openapi.format("cron", cron)
schemathesis.openapi.format("entity-tag", st.builds('"{}"'.format, number(0, 30)))

HARMLESS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "log": {"type": ["object", "null"], "properties": {"level": {"enum": ["info", "warn", None]}},
                "additionalProperties": False},
        "sessions": {"type": ["object", "null"], "properties": {"ttl": {"enum": ["1h", "2h30m", None]}},
                     "additionalProperties": False},
        "audit.retention": {"enum": ["90d", 0, None]},
    },
}
SHORT = {
    "timeout": {"enum": ["1s", "300ms", "1s 5ms"]},
    "wait": {"enum": ["", "0", "100ms"]},
}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query" and parameter["name"] in SHORT:
                    parameter["schema"] = SHORT[parameter["name"]]
    schemas = raw_schema["components"]["schemas"]
    for name, member in [("SessionRequest", "ttl"), ("TokenRequest", "expires_in")]:
        schemas[name]["properties"][member]["pattern"] = "^[1-9][0-9]{0,2}(s|m|h|d)$"
    paths = raw_schema["paths"]
    paths["/api/v1/config"]["patch"]["requestBody"]["content"]["application/json"]["schema"] = HARMLESS


def names(value, member=None):
    """The texts in which names stand: parts of paths, and targets."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from names(below, name)
    elif isinstance(value, list):
        for below in value:
            yield from names(below, member)
    elif isinstance(value, str) and member in {"target", "key", "id", "name", "kind", "title", "role"}:
        yield value.split("/", 1)[-1]


@schemathesis.hook
def filter_case(context, case):
    query, headers, path = case.query or {}, case.headers or {}, case.path_parameters or {}
    if not isinstance(query, dict):
        return True
    # two parameters that exclude each other
    if query.get("mode") == "tell" and "Idempotency-Key" in headers:
        return False
    if "If-Match" in headers and "If-None-Match" in headers:
        return False
    # a stream that follows has no end
    if case.path.endswith("/events") and query.get("follow") not in (False, "false"):
        return False
    # a schema counts letters, the node bytes
    if any(len(text.encode("utf-8", "replace")) > 256 for text in names([path, case.body])):
        return False
    # what it has read may tell it how the node is called
    return not (case.path.endswith("/stop") and "boot" in path and "-" in str(path["boot"]))
