//! Operations that must be atomic in Redis, as Lua scripts.
//!
//! Each write carries a deadline, by the server's clock: a write that lay in the socket of a hung server is not
//! applied when the server resumes, long after its caller has given up and the store has changed.

use std::sync::LazyLock;

use redis::Script;

/// Answers of the scripts that write.
pub(super) const LATE: i64 = -1;

/// `late(deadline)`, `newer(a, b)` of two stamps, `tell(channel, notice)`.
const COMMON: &str = r"
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function late(deadline) return now() > tonumber(deadline) end
local function newer(a, b)
  for i = 1, 16 do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return false
end
local function tell(channel, notice)
  if channel ~= '' then redis.call('PUBLISH', channel, notice) end
end
";

fn script(body: &str) -> Script {
    Script::new(&format!("{COMMON}{body}"))
}

/// Keeps a value unless a newer one is kept. deadline, value, ttl, channel, notice.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
if late(ARGV[1]) then return -1 end
local kept = redis.call('GETRANGE', KEYS[1], 0, 15)
if #kept == 16 and newer(kept, ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
tell(ARGV[4], ARGV[5])
return 1
",
    )
});

/// A value whose time to live starts again, though not past its last day. ttl.
pub(super) static USE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local value = redis.call('GET', KEYS[1])
if value and #value > 16 then
  local use_by = 0
  for i = 17, 24 do use_by = use_by * 256 + string.byte(value, i) end
  local ttl = math.min(tonumber(ARGV[1]), use_by - now())
  if ttl <= 0 then
    redis.call('DEL', KEYS[1])
    return false
  end
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return value
",
    )
});

/// Forgets a value that is this one or an older one. stamp.
pub(super) static DROP_OLD: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local kept = redis.call('GETRANGE', KEYS[1], 0, 15)
if #kept ~= 16 or newer(kept, ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
",
    )
});

/// Puts a mark in place of a value, or nothing. mark, ttl, channel, notice.
pub(super) static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
if ARGV[1] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
tell(ARGV[3], ARGV[4])
return 1
",
    )
});

/// A list, or the ticket of those who may fill it. ticket, ttl.
pub(super) static RECENT: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'list' then return redis.call('LRANGE', KEYS[1], 0, -1) end
if kind == 'string' then return redis.call('GET', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
",
    )
});

/// Fills a list whose ticket is still good. deadline, ticket, ttl, messages.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
if late(ARGV[1]) then return -1 end
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return 0 end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
for i = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
if #ARGV > 3 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
",
    )
});

/// Appends behind the predecessor, else drops list and tickets.
/// deadline, after, seq, message, how many, how many bytes, ttl, channel, notice, overhead.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
if late(ARGV[1]) then return -1 end
tell(ARGV[8], ARGV[9])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return 0 end
if kind ~= 'list' then return redis.call('DEL', KEYS[1]) end
local last = string.sub(redis.call('LINDEX', KEYS[1], -1), 9, 16)
if last == ARGV[3] then return 0 end
if last ~= ARGV[2] then return redis.call('DEL', KEYS[1]) end
redis.call('RPUSH', KEYS[1], ARGV[4])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[5]), -1)
local list, bytes = redis.call('LRANGE', KEYS[1], 0, -1), 0
for i = #list, 1, -1 do
  bytes = bytes + #list[i] + tonumber(ARGV[10])
  if bytes > tonumber(ARGV[6]) then
    if i == #list then return redis.call('DEL', KEYS[1]) end
    redis.call('LTRIM', KEYS[1], i - #list, -1)
    break
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
",
    )
});
