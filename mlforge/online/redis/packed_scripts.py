"""Scripts of packed rows: a feature's rows lie in buckets, hashes of some 50 rows each, which grow in number with the rows.

KEYS[1] is the feature's books, KEYS[2] the directory: a hash of `epoch`, `buckets` and the schemas that rows name. A bucket's
key is the directory's, the epoch, `:` and its number, a field the first 16 bytes of the entity's digest. Buckets are those of
linear hashing: with n of them, and p the greatest power of two up to n, a row with the number h (the first four bytes of
its digest) lies in bucket h mod 2p, or, where there is none such, in h mod p. So one more bucket takes rows from one other.

A directory that was lost starts another epoch, so that no row is looked for, or found, where it does not belong.
"""

from __future__ import annotations

from mlforge.online.redis.scripts import BOOKS_FIRST, FENCED

MOST = 72
"""Rows of a bucket beyond which one is split: larger ones save little memory, and take longer to search."""
LOOKED_AT = 8
"""The number of buckets of which the first is looked at, and stands for the others: digests fill all alike."""
DAMAGED = "DAMAGEDROWS"

_PLACED = f"""
local call, number, D = redis.call, struct.unpack, KEYS[2]
local known = call('HMGET', D, 'epoch', 'buckets')
local epoch, n, p = known[1], tonumber(known[2] or 1), 1
if not n or n < 1 or n % 1 ~= 0 then return redis.error_reply('{DAMAGED} ' .. tostring(known[2])) end
while p * 2 <= n do p = p * 2 end
local twice, head = 2 * p, D .. (epoch or '') .. ':'
"""

_SPLIT = """
local function split(times)
  for _ = 1, times do
    local old, new, moved, gone = head .. (n - p), head .. n, {}, {}
    local flat = call('HGETALL', old)
    for i = 1, #flat, 2 do
      if number('>I4', flat[i]) % twice == n then
        moved[#moved + 1], moved[#moved + 2], gone[#gone + 1] = flat[i], flat[i + 1], flat[i]
      end
    end
    call('UNLINK', new)
    if #moved > 0 then
      local left = call('PTTL', old)
      call('HSET', new, unpack(moved))
      call('HDEL', old, unpack(gone))
      if left > 0 then call('PEXPIRE', new, left) end
    end
    n = n + 1
    if n == twice then p, twice = n, 2 * n end
  end
  if times > 0 then call('HSET', D, 'buckets', n) end
end
"""

# ARGV: digests. The rows.
READ = f"""{_PLACED}
local rows = {{}}
for i = 1, #ARGV do
  local digest = ARGV[i]
  local at = number('>I4', digest) % twice
  if at >= n then at = at - p end
  rows[i] = call('HGET', head .. at, digest)
end
return rows
"""

# Sets the life of a key. One written by no push lengthens what others' rows have, and shortens nothing.
_LIVE = f"""{BOOKS_FIRST}
local life = ARGV[2]
if life ~= '' and life ~= 'keep' then books_first(life) end
local function live(key, is_new)
  if life == '' then
    call('PERSIST', key)
  elseif life ~= 'keep' then
    local left = fence == '' and not is_new and call('PTTL', key)
    if not left or (left >= 0 and left < tonumber(life) * 1000) then call('EXPIRE', key, life) end
  end
end
"""

# ARGV: the fence; the life in seconds, empty for ever, "keep" to set it later; a new epoch's name; the field and the text of the rows' schema, empty for none;
# then digests and rows by turns.
PUT = f"""{FENCED}{_PLACED}{_SPLIT}{_LIVE}
local buckets, full = {{}}, 0
if not epoch then
  head = D .. ARGV[3] .. ':'
  call('HSET', D, 'epoch', ARGV[3], 'buckets', n)
end
if ARGV[4] ~= '' then call('HSETNX', D, ARGV[4], ARGV[5]) end
for i = 6, #ARGV, 2 do
  local at = number('>I4', ARGV[i]) % twice
  if at >= n then at = at - p end
  local fields = buckets[at]
  if fields then
    local last = #fields
    fields[last + 1], fields[last + 2] = ARGV[i], ARGV[i + 1]
  else
    buckets[at] = {{ARGV[i], ARGV[i + 1]}}
  end
end
for at, fields in pairs(buckets) do
  local key = head .. at
  local added = call('HSET', key, unpack(fields))
  live(key, 2 * added == #fields and call('HLEN', key) == added)
  if added > 0 and at % {LOOKED_AT} == 0 and call('HLEN', key) > {MOST} then full = full + {LOOKED_AT} end
end
split(full)
live(D, not epoch)
return (#ARGV - 5) / 2
"""

# ARGV: the fence; a new epoch's name; the least number of buckets; how many to make at once. The number that there is.
GROW = f"""{FENCED}{_PLACED}{_SPLIT}
local least = tonumber(ARGV[3])
if epoch then
  split(math.max(0, math.min(tonumber(ARGV[4]), least - n)))
else
  n = least
  call('HSET', D, 'epoch', ARGV[2], 'buckets', n)
end
return n
"""

# ARGV: the fence; then digests.
REMOVE = f"""{FENCED}{_PLACED}
local gone = 0
for i = 2, #ARGV do
  local at = number('>I4', ARGV[i]) % twice
  if at >= n then at = at - p end
  gone = gone + call('HDEL', head .. at, ARGV[i])
end
return gone
"""

# ARGV: the fence; the life in seconds, empty for ever, "keep" to leave it; the first bucket and the one behind the last.
# The number of buckets, and of rows in these.
RENEW = f"""{FENCED}{_PLACED}{_LIVE}
local rows = 0
live(D)
for at = tonumber(ARGV[3]), math.min(n, tonumber(ARGV[4])) - 1 do
  live(head .. at)
  rows = rows + call('HLEN', head .. at)
end
return {{n, rows}}
"""

# ARGV: the first bucket and the one behind the last. The number of buckets, and of rows in these.
COUNT = f"""{_PLACED}
local rows = 0
for at = tonumber(ARGV[1]), math.min(n, tonumber(ARGV[2])) - 1 do rows = rows + call('HLEN', head .. at) end
return {{n, rows}}
"""

# ARGV: the first bucket and the one behind the last. The number of buckets, and the digests in these.
LIST = f"""{_PLACED}
local digests = {{}}
for at = tonumber(ARGV[1]), math.min(n, tonumber(ARGV[2])) - 1 do
  local fields = call('HKEYS', head .. at)
  for i = 1, #fields do digests[#digests + 1] = fields[i] end
end
return {{n, digests}}
"""

# ARGV: keys below the directory's. Deletes buckets of other epochs.
SWEEP = f"""{_PLACED}
local gone = 0
for i = 1, #ARGV do
  if string.sub(ARGV[i], 1, #head) ~= head then gone = gone + call('UNLINK', ARGV[i]) end
end
return gone
"""
