"""Scripts of what must happen atomically on the server, in Lua.

KEYS[1] is always the feature's books, ARGV[1] the fence as "generation instant store"; rows follow in KEYS.
Scripts are sent whole with every call (a chunk of rows is a hundred times their size), so a server that
was restarted needs no second try.
"""

from __future__ import annotations

STALE, OWNED, DAMAGED = "STALEPUSH", "OWNEDELSEWHERE", "DAMAGEDBOOKS"
OTHER_LAYOUT = "OTHERLAYOUT"

# ARGV: the fence; the target; the books' life in milliseconds; the feature; the owner's id and place; the id
# that it takes the feature from, and "1" if the books are to start anew then; the format of the books.
BEGIN = f"""
local read = redis.call('HMGET', KEYS[1], 'fence', 'owner', 'pending', 'format')
local recorded, owner, pending = read[1], read[2], read[3] or '[]'
local function parts(fence)
  local generation, instant = string.match(fence, '^(%d+) (%-?%d+)')
  return tonumber(generation), tonumber(instant)
end
local mine, takes_from = ARGV[5], ARGV[7]
local taken = owner and mine ~= '' and owner ~= mine
if taken then
  if owner ~= takes_from then return redis.error_reply('{OWNED} ' .. owner) end
  if ARGV[8] == '1' then
    redis.call('DEL', KEYS[1])
    pending = '[]'
  end
elseif recorded then
  local g0, t0 = parts(recorded)
  if not g0 then return redis.error_reply('{DAMAGED} ' .. recorded) end
  local g1, t1 = parts(ARGV[1])
  if g0 > g1 or (g0 == g1 and t0 > t1) then return redis.error_reply('{STALE} ' .. recorded) end
end
if read[4] and read[4] ~= ARGV[9] then
  redis.call('HDEL', KEYS[1], 'version')  -- nothing is promised: the rows lie in another layout
  pending = '[]'
end
local target, life, feature = ARGV[2], ARGV[3], ARGV[4]
if not string.find(pending, target, 1, true) then
  pending = pending == '[]' and '[' .. target .. ']' or string.sub(pending, 1, -2) .. ',' .. target .. ']'
end
local fence = string.match(ARGV[1], '^%d+ %-?%d+')
redis.call('HSET', KEYS[1], 'format', ARGV[9], 'fence', fence, 'pending', pending)
if mine ~= '' and owner ~= mine then redis.call('HSET', KEYS[1], 'owner', mine, 'owner_place', ARGV[6]) end
if life ~= '' and (not recorded or (taken and ARGV[8] == '1')) then
  redis.call('PEXPIRE', KEYS[1], life)
end
local list = KEYS[2] and redis.call('TYPE', KEYS[2]).ok
if list and list ~= 'set' and list ~= 'none' then redis.call('UNLINK', KEYS[2]) end
if list then redis.call('SADD', KEYS[2], feature) end
return redis.call('HGETALL', KEYS[1])
"""

FEATURE = 3
"""The position of the feature's name in the arguments of BEGIN."""

# KEYS[1]: the list of features, where it does not lie beside the books. ARGV[1]: the feature.
LIST = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'set' and kind ~= 'none' then redis.call('UNLINK', KEYS[1]) end
return redis.call('SADD', KEYS[1], ARGV[1])
"""

# ARGV[1]: the fence, empty for none, a space, and the format of the books.
FENCED = f"""
local call = redis.call
local read = call('HMGET', KEYS[1], 'fence', 'owner', 'format')
local fence, format = string.match(ARGV[1], '^(.*) (%S+)$')
if read[3] and read[3] ~= format then return redis.error_reply('{OTHER_LAYOUT} ' .. read[3]) end
if fence ~= '' then
  local recorded = (read[1] or '') .. ' ' .. (read[2] or '')
  if not read[1] or recorded ~= fence then return redis.error_reply('{STALE} ' .. (read[1] or '')) end
end
local n = 0
"""

# Books go within half of the life that a push gives to rows: they outlive none, wherever the push ends.
BOOKS_FIRST = """
local function books_first(life)
  local left, half = call('PTTL', KEYS[1]), tonumber(life) * 500
  if fence ~= '' and (left < 0 or left > half) then call('PEXPIRE', KEYS[1], string.format('%.0f', half)) end
end
"""

# ARGV[1]: the id of the store whose books may go; empty asks nothing. A key that is no hash has no owner.
FORGET = f"""
local is_hash = redis.call('TYPE', KEYS[1]).ok == 'hash'
local owner = ARGV[1] ~= '' and is_hash and redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return redis.error_reply('{OWNED} ' .. owner) end
return redis.call('UNLINK', KEYS[1])
"""

# One command for all rows, where the server knows it: MSETEX came with Redis 8.4 and Valkey 9.1.
PUT = f"""{FENCED}{BOOKS_FIRST}
local life, pairs = ARGV[2], {{}}
for i = 2, #KEYS do
  pairs[2 * i - 3] = KEYS[i]
  pairs[2 * i - 2] = ARGV[i + 1]
end
n = #KEYS - 1
if life == '' then
  call('MSET', unpack(pairs))
else
  books_first(life)
  local last = #pairs
  pairs[last + 1], pairs[last + 2] = 'EX', life
  local done = redis.pcall('MSETEX', n, unpack(pairs))
  if type(done) == 'table' then
    for i = 1, last, 2 do call('SET', pairs[i], pairs[i + 1], 'EX', life) end
  end
end
return n
"""

REMOVE = f"""{FENCED}
if #KEYS > 1 then n = call('UNLINK', unpack(KEYS, 2)) end
return n
"""

# ARGV: the format of the books; then keys of rows of another layout, which nobody reads while the books have that format.
SWEEP = """
local gone = 0
if redis.call('HGET', KEYS[1], 'format') == ARGV[1] then
  for i = 2, #ARGV do gone = gone + redis.call('UNLINK', ARGV[i]) end
end
return gone
"""

RENEW = f"""{FENCED}{BOOKS_FIRST}
if ARGV[2] ~= '' then books_first(ARGV[2]) end
for i = 2, #KEYS do
  if ARGV[2] == '' then call('PERSIST', KEYS[i]) else call('EXPIRE', KEYS[i], ARGV[2]) end
  n = n + call('EXISTS', KEYS[i])
end
return n
"""

MOVED = "SERVERMOVED"

# ARGV[2]: the books' life in milliseconds, empty for ever, "keep" to leave it. ARGV[3]: the run of the server
# that holds the rows, of a cluster those of all nodes; a server that does not tell its own is believed.
RECORD = f"""{FENCED}
if ARGV[3] ~= '' then
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  if run and not string.find(ARGV[3], run, 1, true) then return redis.error_reply('{MOVED} ' .. run) end
end
for i = 4, #ARGV, 2 do  -- whole books are written: what only books with some have goes first
  if ARGV[i] == 'pending' then call('HDEL', KEYS[1], 'defaults', 'formerly', 'history') end
end
call('HSET', KEYS[1], unpack(ARGV, 4))
if ARGV[2] == '' then call('PERSIST', KEYS[1])
elseif ARGV[2] ~= 'keep' then call('PEXPIRE', KEYS[1], ARGV[2]) end
return n
"""
