"""The scripts by which tickets change, each in one step: no two processes see a ticket half-changed."""

from __future__ import annotations

from mlforge.core.values import SECOND_US

LEASE_AT_MOST_MS = 60_000
"""A lease that would last for longer was given by nobody of us."""

REST_AT_MOST_US = 3_600 * SECOND_US
"""A feature that would be left alone for longer is so by nobody of us."""

MOST_NAMED_BYTES = 65_536
"""The most that a ticket keeps of paths that its requests name."""

COSTLY_US = 30 * SECOND_US
"""An attempt that took longer is not made again at once, time after time, while an outage ends each."""

# KEYS: 1 the ticket, 2 its lease. Times come from the server: hosts need not agree on the time.
# A script whose answer was lost is sent again, with the same job: it must answer as it did.
_NOW = f"local t = redis.call('TIME'); local now = t[1] * {SECOND_US} + t[2];"
# A lease that has lost its expiry, or was forged without one, is held by nobody.
_HOLDER = f"""
local function holder_of(lease)
  if redis.call('TYPE', lease).ok ~= 'string' then return false end
  local left = redis.call('PTTL', lease)
  return left >= 0 and left <= {LEASE_AT_MOST_MS} and redis.call('GET', lease)
end
"""
_FORGET_NAMED = """
local function forget_named(serves)
  local named = redis.call('HGET', KEYS[1], 'named')
  if not named then return end
  local left = string.gsub(named, '(%d+)\\t[^%z]*%z', function(count)
    if tonumber(count) <= serves then return '' end
  end)
  if left == '' then redis.call('HDEL', KEYS[1], 'named', 'named_by')
  else redis.call('HSET', KEYS[1], 'named', left) end
end
"""

# KEYS: a ticket and its lease, for each feature. ARGV: 1 who names paths, then for each feature a job, the reason, when the file was closed,
# whether failures are forgotten, and entries of `worker.state.named_paths`. Entries that other definitions' watcher has named are of
# other sources. A ticket that is none of ours has an error in the place of its answer.
REQUEST = f"""{_HOLDER}
local by = ARGV[1]
local stamp
local function now()
  if not stamp then
    local t = redis.call('TIME')
    stamp = string.format('%d', t[1] * {SECOND_US} + t[2])
  end
  return stamp
end
local function rests(ticket, rests_until)
  local time = tonumber(now())
  local left = (tonumber(rests_until) or 0) - time
  local began = tonumber(redis.call('HGET', ticket, 'served_at') or '') or 0
  return began <= time and left > 0 and left <= {REST_AT_MOST_US}
end
local faults = {{'failures', 'interruptions', 'deaths', 'error', 'failed_at', 'exhausted', 'took'}}
-- A dropped file ends no outage: what an attempt costs is not spent again for each. But it may mend what parks a feature.
local function is_paused(failures, interruptions, deaths, took)
  if failures or deaths then return false end
  return (tonumber(interruptions or '') or 0) > 0 and (tonumber(took or '') or 0) > {COSTLY_US}
end
local function named(ticket, wanted, paths)
  local before, namer = unpack(redis.call('HMGET', ticket, 'named', 'named_by'))
  if not before or namer ~= by then before = '' end
  local all = before .. string.gsub(paths, '[^%z]+%z', string.format('%d', wanted) .. '\\t%0')
  return #all > {MOST_NAMED_BYTES} and '' or all
end
local function request(ticket, lease, job, reason, closed_at, afresh, paths)
  local seen = redis.call('HMGET', ticket, 'queued', 'closed_at', 'rests_until', unpack(faults))
  local queued, known, rests_until, failed_at = seen[1], seen[2], seen[3], seen[8]
  if queued == job then return {{1, tonumber(redis.call('HGET', ticket, 'wanted'))}} end
  local wanted = redis.call('HINCRBY', ticket, 'wanted', 1)
  local changes = {{'reason', reason}}
  local function set(field, value)
    changes[#changes + 1], changes[#changes + 2] = field, value
  end
  if paths ~= '' then
    set('named', named(ticket, wanted, paths))
    set('named_by', by)
  end
  if closed_at ~= '' and (not known or tonumber(closed_at) < tonumber(known)) then
    set('closed_at', closed_at)
    set('requested_at', now())
  end
  if afresh == '1' and (failed_at or seen[4] or seen[5] or seen[6] or seen[7])
    and not (closed_at ~= '' and is_paused(seen[4], seen[5], seen[6], seen[10])) then
    redis.call('HDEL', ticket, unpack(faults))
    failed_at = false
  end
  local is_new = not (failed_at or queued or holder_of(lease) or rests_until and rests(ticket, rests_until))
  if is_new then set('queued', job) end
  redis.call('HSET', ticket, unpack(changes))
  return {{is_new and 1 or 0, wanted}}
end
local answers = {{}}
for n = 1, #KEYS / 2 do
  local went_well, answer = pcall(request, KEYS[2 * n - 1], KEYS[2 * n], unpack(ARGV, 5 * n - 3, 5 * n + 1))
  if not went_well then answer = redis.error_reply(type(answer) == 'table' and answer.err or answer) end
  answers[#answers + 1] = answer
end
return answers
"""

REQUEUE = f"""{_HOLDER}
local job, seen = ARGV[1], ARGV[2]
if holder_of(KEYS[2]) then return 0 end
local queued = redis.call('HGET', KEYS[1], 'queued') or ''
if queued == job then return 1 end
if queued ~= seen then return 0 end
redis.call('HSET', KEYS[1], 'queued', job)
return 1
"""

# KEYS: 3 the queue, 4 the queued job, which the new holder's takes the place of; where it is to be taken out of the queue.
START = f"""{_HOLDER}
local job, ttl, attempt, other = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local queued = redis.call('HGET', KEYS[1], 'queued')
if other ~= '' and queued ~= other and redis.call('HGET', KEYS[1], 'attempt') ~= attempt then
  return false
end
if queued and (queued == job or queued == other) then
  redis.call('HDEL', KEYS[1], 'queued')
end
local wanted = tonumber(redis.call('HGET', KEYS[1], 'wanted') or '0')
if wanted <= tonumber(redis.call('HGET', KEYS[1], 'served') or '0') then return false end
local holder = holder_of(KEYS[2])
if holder and redis.call('HGET', KEYS[1], 'attempt') ~= attempt then return false end
redis.call('SET', KEYS[2], job, 'PX', ttl)
if KEYS[3] then
  redis.pcall('LREM', KEYS[3], 1, other)
  redis.call('DEL', KEYS[4])
end
local closed_at, requested_at = unpack(redis.call('HMGET', KEYS[1], 'closed_at', 'requested_at'))
local left, left_at = unpack(redis.call('HMGET', KEYS[1], 'taken_closed_at', 'taken_requested_at'))
if left and (not closed_at or tonumber(left) < tonumber(closed_at)) then
  closed_at, requested_at = left, left_at
end
redis.call('HDEL', KEYS[1], 'closed_at', 'requested_at', 'taken_requested_at')
if closed_at then redis.call('HSET', KEYS[1], 'taken_closed_at', closed_at) end
if requested_at then redis.call('HSET', KEYS[1], 'taken_requested_at', requested_at) end
{_NOW}
redis.call('HSET', KEYS[1], 'working', job, 'attempt', attempt, 'taken_at', string.format('%d', now))
local served, named, namer, whole_at = unpack(redis.call('HMGET', KEYS[1], 'served', 'named', 'named_by', 'whole_at'))
return {{
  wanted, closed_at or '', redis.call('HGET', KEYS[1], 'reason') or '',
  requested_at or '', string.format('%d', now), served or '0', named or '', namer or '', whole_at or ''
}}
"""

RENEW = """
if redis.call('TYPE', KEYS[2]).ok ~= 'string' then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

# Who lost the lease does not say what was served: the server may have lost the ticket with it and
# count from 0, and then an old count would pass for requests that nobody has seen.
DONE = f"""{_HOLDER}{_FORGET_NAMED}
local held, serves, job, looked, rest = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
if (tonumber(redis.call('HGET', KEYS[1], 'at_once') or '') or 0) > serves then rest = 0 end
if redis.call('HGET', KEYS[1], 'queued') == job then return 1 end
if holder_of(KEYS[2]) ~= held then return 0 end
{_NOW}
-- A push alone serves no request: those that wait still tell when their files were closed.
if serves > tonumber(redis.call('HGET', KEYS[1], 'served') or '0') then
  redis.call('HSET', KEYS[1], 'served', serves, 'served_at', string.format('%d', now))
  redis.call('HDEL', KEYS[1], 'taken_closed_at', 'taken_requested_at')
end
forget_named(serves)
if looked == 'all' then redis.call('HSET', KEYS[1], 'whole_at', string.format('%d', now))
elseif looked ~= 'named' then redis.call('HDEL', KEYS[1], 'whole_at') end
redis.call('DEL', KEYS[2])
if rest > 0 then redis.call('HSET', KEYS[1], 'rests_until', string.format('%d', now + rest))
else redis.call('HDEL', KEYS[1], 'rests_until') end
redis.call('HDEL', KEYS[1], 'working', 'failures', 'interruptions', 'deaths', 'error', 'failed_at', 'exhausted', 'told_outages')
redis.call('HDEL', KEYS[1], 'failing_since', 'first_died_at', 'took')
local wanted = tonumber(redis.call('HGET', KEYS[1], 'wanted') or '0')
if rest > 0 or wanted <= serves or redis.call('HEXISTS', KEYS[1], 'queued') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'queued', job)
return 1
"""

FAILED = f"""{_HOLDER}
local held, serves, job, counter, error, exhausted = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if job ~= '' and redis.call('HGET', KEYS[1], 'queued') == job then return 1 end
local holder = holder_of(KEYS[2])
if holder and holder ~= held then return false end
if redis.call('HGET', KEYS[1], 'working') ~= held then return false end
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'working')
{_NOW}
redis.call('HSET', KEYS[1], 'error', error, 'failed_at', string.format('%d', now))
-- A process that is ended once, as a deploy does, tells nothing of the feature, whose long build may go well now.
if counter ~= 'deaths' or redis.call('HSETNX', KEYS[1], 'first_died_at', string.format('%d', now)) == 0 then
  local since = redis.call('HGET', KEYS[1], 'first_died_at') or string.format('%d', now)
  redis.call('HSETNX', KEYS[1], 'failing_since', since)
end
if exhausted == '1' then redis.call('HSET', KEYS[1], 'exhausted', '1') else redis.call('HDEL', KEYS[1], 'exhausted') end
local times = redis.call('HINCRBY', KEYS[1], counter, 1)
local took = now - (tonumber(redis.call('HGET', KEYS[1], 'taken_at') or '') or now)
local is_costly = counter == 'interruptions' and took > {COSTLY_US}
if is_costly then redis.call('HSET', KEYS[1], 'took', string.format('%d', took)) else redis.call('HDEL', KEYS[1], 'took') end
local wanted = tonumber(redis.call('HGET', KEYS[1], 'wanted') or '0')
if serves < 0 or wanted <= serves or redis.call('HEXISTS', KEYS[1], 'queued') == 1 then return 0 end
if is_costly and times > 1 then return 0 end
redis.call('HSET', KEYS[1], 'queued', job)
return 1
"""
