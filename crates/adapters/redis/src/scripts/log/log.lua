
---------------------------------------------------------------------------------------------------------------------------
-- Everything else that a log is told or asked.

-- How many of a list are handed to one command of the server.
local SLICE = 500

-- The server's clock, in milliseconds: what leases go by, so that it does not matter how right those of the instances are.
local function server_time()
  local now = call('TIME')
  return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end

-- NOW in what follows: the server's time if it is empty, as it always is but in tests that tell many histories of leases in a moment.
local function time_of(now) return now == '' and server_time() or tonumber(now) end

-- How long a lease may be to lapse at all, and when one lapses that does not, which is also how long it is.
local FOR_EVER, NEVER = 2 ^ 53, '18446744073709551615'

local function lease_of(epoch, now, lease, longest)
  local expires = now + (lease == NEVER and FOR_EVER or math.min(tonumber(lease), longest))
  return epoch .. ' ' .. (expires < FOR_EVER and string.format('%.0f', expires) or NEVER)
end

-- Cuts the leases that stand for longer than any is granted for: the server's clock was set back since. Who lives renews its own in time; who is gone would
-- seem to live until that clock has caught up.
local function cut_leases(now, longest)
  local all, latest = call('HGETALL', base .. 'instances'), now + longest
  for i = 2, #all, 2 do
    local epoch, expires = string.match(all[i], '^(%d+) (%d+)$')
    if expires and expires ~= NEVER and tonumber(expires) > latest then
      call('HSET', base .. 'instances', all[i - 1], epoch .. ' ' .. string.format('%.0f', latest))
    end
  end
end

-- Drops the instances that were taken over, which have nothing left: whoever is not listed is fenced. The one with the highest epoch stays, so that no
-- epoch is ever given twice. Answers with that epoch.
local function drop_taken_over()
  local all, highest, gone = call('HGETALL', base .. 'instances'), 0, {}
  for i = 2, #all, 2 do highest = math.max(highest, tonumber(string.match(all[i], '^%d+'))) end
  for i = 2, #all, 2 do
    local epoch, expires = string.match(all[i], '^(%d+) (%d*)$')
    if expires == '' and tonumber(epoch) ~= highest then gone[#gone + 1] = all[i - 1] end
  end
  for first = 1, #gone, SLICE do
    call('HDEL', base .. 'instances', unpack(gone, first, math.min(first + SLICE - 1, #gone)))
  end
  return highest
end

-- Gives what one instance has unfinished to another, or to itself, and says how many that were. Each keeps whose it was, until when, and whether it was
-- decided then, as FROM TO NOW 0|1; of which the latest takes the place of the one before it once there are so many.
local function hand_over(from, to, now, most_handovers)
  local now, most = now == '' and string.format('%.0f', server_time()) or now, tonumber(most_handovers)
  local handed, open = 0, call('ZCARD', base .. 'open')
  for first = 0, open - 1, SLICE do
    local ids = call('ZRANGE', base .. 'open', first, first + SLICE - 1)
    local records, handovers = call('HMGET', base .. 'records', unpack(ids)), call('HMGET', base .. 'handovers', unpack(ids))
    local owned, histories = {}, {}
    for i = 1, #ids do
      local owner, decided, rest = string.match(records[i] or '', '^([^|]*)|([^|]*)(.*)$')
      if owner == from then
        owned[#owned + 1], owned[#owned + 2] = ids[i], to .. '|' .. decided .. rest
        local before = handovers[i] or ''
        if select(2, string.gsub(before, ';', '')) == most then before = string.gsub(before, '[^;]*;$', '') end
        histories[#histories + 1] = ids[i]
        histories[#histories + 1] = before .. from .. ' ' .. to .. ' ' .. now .. (decided == '' and ' 0;' or ' 1;')
        handed = handed + 1
      end
    end
    if owned[1] then
      call('HSET', base .. 'records', unpack(owned))
      call('HSET', base .. 'handovers', unpack(histories))
    end
  end
  return handed
end

-- register INSTANCE NOW LEASE LONGEST MOST_HANDOVERS
local function register()
  -- Above every epoch that was ever given to anybody.
  local epoch = string.format('%.0f', drop_taken_over() + 1)
  call('HSET', base .. 'instances', ARGV[2], lease_of(epoch, time_of(ARGV[3]), ARGV[4], tonumber(ARGV[5])))
  -- What it left behind when it ended is its own again.
  hand_over(ARGV[2], ARGV[2], ARGV[3], ARGV[6])
  drop_taken_over()
  return { 'registered', epoch }
end

-- renew INSTANCE EPOCH NOW LEASE LONGEST
local function renew()
  if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
  local now, longest = time_of(ARGV[4]), tonumber(ARGV[6])
  call('HSET', base .. 'instances', ARGV[2], lease_of(ARGV[3], now, ARGV[5], longest))
  cut_leases(now, longest)
  return 'ok'
end

-- take INSTANCE EPOCH FROM NOW MOST_HANDOVERS
local function take()
  local instance, from = ARGV[2], ARGV[4]
  if is_fenced(instance, ARGV[3]) then return 'fenced' end
  local lease = call('HGET', base .. 'instances', from)
  if not lease then return 'not_found' end
  local epoch, expires = string.match(lease, '^(%d+) (%d*)$')
  if expires ~= '' and time_of(ARGV[5]) <= tonumber(expires) then return 'alive' end
  call('HSET', base .. 'instances', from, string.format('%.0f ', tonumber(epoch) + 1))
  local taken = hand_over(from, instance, ARGV[5], ARGV[6])
  drop_taken_over()
  return { 'taken', string.format('%.0f', taken) }
end

-- finish INSTANCE EPOCH NOW ID ...
local function finish()
  if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
  local ids = { unpack(ARGV, 5) }
  if not ids[1] then return 'ok' end
  local records = call('HMGET', base .. 'records', unpack(ids))
  local resolutions = call('HMGET', base .. 'resolutions', unpack(ids))
  local now, seen, written, gone, last, by_hand, youngest = ARGV[4], {}, {}, {}, {}, {}, 0
  for i = 1, #ids do
    local id = ids[i]
    local decided, rest = string.match(records[i] or '', '^[^|]*|([^|]+)||(.*)$')
    if decided and not seen[id] then
      seen[id] = true
      -- Whoever lost it goes on with what was decided, and may be the first at its end.
      written[#written + 1], written[#written + 2] = id, ARGV[2] .. '|' .. decided .. '|' .. now .. '|' .. rest
      gone[#gone + 1] = id
      youngest = math.max(youngest, birth_of(id))
      -- What was settled by hand is remembered for good: its branch may still come and ask.
      if resolutions[i] then
        by_hand[#by_hand + 1], by_hand[#by_hand + 2] = '0', id
      else
        last[#last + 1] = id .. ' ' .. now
      end
    end
  end
  if gone[1] then
    call('HSET', base .. 'records', unpack(written))
    call('HDEL', base .. 'payloads', unpack(gone))
    call('ZREM', base .. 'open', unpack(gone))
    if last[1] then call('RPUSH', base .. 'finished', unpack(last)) end
    if by_hand[1] then call('ZADD', base .. 'by_hand', unpack(by_hand)) end
    remember(youngest)
  end
  return 'ok'
end

local function is_open(record) return record and string.match(record, '^[^|]*|[^|]*||') end

-- park INSTANCE EPOCH ID STEP AT LETTER, where a letter is kept as STEP AT LETTER; and takes the place of an older one of its step
local function park()
  if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
  local id, kept = ARGV[4], {}
  if not is_open(call('HGET', base .. 'records', id)) then return 'not_found' end
  for step, letter in string.gmatch(call('HGET', base .. 'letters', id) or '', '(%d+)( %d+ %x+;)') do
    if step ~= ARGV[5] then kept[#kept + 1] = step .. letter end
  end
  kept[#kept + 1] = ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7] .. ';'
  call('HSET', base .. 'letters', id, table.concat(kept))
  return 'ok'
end

-- tried INSTANCE EPOCH ID WHAT TRIES ..., where WHAT is STEP VERB: kept as WHAT TRIES; and takes the place of what was told of that before
local function tried()
  if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
  local id, kept = ARGV[4], {}
  if not is_open(call('HGET', base .. 'records', id)) then return 'not_found' end
  if not ARGV[5] then return 'ok' end
  for what, tries in string.gmatch(call('HGET', base .. 'tries', id) or '', '(%d+ %a+) (%x+);') do
    kept[#kept + 1] = { what, tries }
  end
  for at = 5, #ARGV, 2 do
    for i = #kept, 1, -1 do
      if kept[i][1] == ARGV[at] then table.remove(kept, i) end
    end
    kept[#kept + 1] = { ARGV[at], ARGV[at + 1] }
  end
  for i = 1, #kept do kept[i] = kept[i][1] .. ' ' .. kept[i][2] .. ';' end
  call('HSET', base .. 'tries', id, table.concat(kept))
  return 'ok'
end

-- resolve ID STEP AT RESOLUTION
local function resolve()
  local id, step = ARGV[2], ARGV[3]
  local record = call('HGET', base .. 'records', id)
  if not record then return 'not_found' end
  -- What is acknowledged by hand is a decision: without one, nobody could know what it would be.
  if not is_open(record) or decision_of(record) == '' then return 'not_stuck' end
  local resolutions = call('HGET', base .. 'resolutions', id) or ''
  local latest = -1
  for of, at in string.gmatch(resolutions, '(%d+) (%d+) %x+;') do
    if of == step then latest = math.max(latest, tonumber(at)) end
  end
  -- A letter written after the resolution is a new one.
  local stuck = false
  for of, at in string.gmatch(call('HGET', base .. 'letters', id) or '', '(%d+) (%d+) %x+;') do
    if of == step and tonumber(at) > latest then stuck = true end
  end
  if not stuck then return 'not_stuck' end
  call('HSET', base .. 'resolutions', id, resolutions .. step .. ' ' .. ARGV[4] .. ' ' .. ARGV[5] .. ';')
  return 'ok'
end

-- ask NOW DECISION ID ...: one letter each: committed, aborted, pending, forgotten. What was never staged is aborted by DECISION.
local function ask()
  local ids, verdicts, buried = { unpack(ARGV, 4) }, {}, {}
  local records = call('HMGET', base .. 'records', unpack(ids))
  for i = 1, #ids do
    local decided = decision_of(records[i])
    if decided then
      verdicts[i] = decided == '' and 'p' or string.sub(decided, 1, 1)
    elseif buried[ids[i]] then
      verdicts[i] = 'a'
    elseif is_forgotten(ids[i]) then
      verdicts[i] = 'f'
    else
      entomb(ids[i], ARGV[3], ARGV[2])
      buried[ids[i]] = true
      verdicts[i] = 'a'
    end
  end
  return { 'verdicts', table.concat(verdicts) }
end

-- forget FINISHED_BEFORE KEEP SPARE_SINCE HOW_MANY_AT_ONCE: 'more' if it should be called again
local function forget()
  local before, keep, spare = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local length, most = call('LLEN', base .. 'finished'), tonumber(ARGV[5])
  local gone, risen = {}, 0
  -- Most often there is nothing to do: one is looked at first.
  local from, upto = 0, 0
  while true do
    local oldest = call('LRANGE', base .. 'finished', from, upto)
    for i = 1, #oldest do
      local id, time = string.match(oldest[i], '^(%S+) (%d+)$')
      local birth, finished = birth_of(id), tonumber(time)
      local surplus = length - #gone > keep and finished < spare and birth < spare
      if finished >= before and not surplus then break end
      gone[#gone + 1] = id
      risen = math.max(risen, birth)
    end
    if from > 0 or #gone == 0 then break end
    from, upto = 1, most - 1
  end
  if gone[1] then
    call('HDEL', base .. 'records', unpack(gone))
    for _, beside in ipairs({ 'letters', 'handovers', 'tries' }) do call('HDEL', base .. beside, unpack(gone)) end
    call('LTRIM', base .. 'finished', #gone, -1)
    call('HINCRBY', meta, 'forgotten', #gone)
    if risen > tonumber(call('HGET', meta, 'floor') or '0') then
      call('HSET', meta, 'floor', string.format('%.0f', risen))
    end
  end
  return { 'ok', #gone == most and #gone < length and 'more' or 'all' }
end

---------------------------------------------------------------------------------------------------------------------------
-- Questions.

-- What is known of transactions: their ids, records, and what is kept beside those, one list each.
local function rows(ids)
  local found = { ids }
  for i, part in ipairs({ 'records', 'payloads', 'letters', 'resolutions', 'handovers', 'tries' }) do
    found[i + 1] = ids[1] and call('HMGET', base .. part, unpack(ids)) or {}
  end
  return found
end

-- oldest AFTER LIMIT: unfinished ones with ids above AFTER; the instances, and the time that their leases go by
local function oldest()
  local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
  local ids = call('ZRANGEBYLEX', base .. 'open', after, '+', 'LIMIT', '0', ARGV[3])
  return { rows(ids), call('HGETALL', base .. 'instances'), string.format('%.0f', server_time()) }
end

-- latest BEFORE LIMIT: unfinished ones with ids below BEFORE, the latest first
local function latest()
  local before = ARGV[2] == '' and '+' or '(' .. ARGV[2]
  return rows(call('ZREVRANGEBYLEX', base .. 'open', before, '-', 'LIMIT', '0', ARGV[3]))
end

-- finished LIMIT: the last that finished, the latest first, and those settled by hand behind them
local function finished()
  local limit, ids = tonumber(ARGV[2]), {}
  local last = limit > 0 and call('LRANGE', base .. 'finished', -limit, -1) or {}
  for i = #last, 1, -1 do ids[#ids + 1] = string.match(last[i], '^%S+') end
  if #ids < limit then
    local by_hand = call('ZREVRANGE', base .. 'by_hand', 0, limit - #ids - 1)
    for i = 1, #by_hand do ids[#ids + 1] = by_hand[i] end
  end
  return rows(ids)
end

-- ended CURSOR COUNT: a page of the transactions that are finished, tombstones left out, and where the next one begins. One may stand on two pages.
local function ended()
  local found, ids = call('HSCAN', base .. 'records', ARGV[2], 'COUNT', ARGV[3]), {}
  local written = found[2]
  for i = 1, #written, 2 do
    if string.match(written[i + 1], '^[^|]+|[^|]+|[^|]+|') then ids[#ids + 1] = written[i] end
  end
  return { found[1], rows(ids) }
end

-- youngest
local function youngest()
  local known = call('HMGET', meta, 'floor', 'youngest')
  local birth = math.max(tonumber(known[1] or '0'), tonumber(known[2] or '0'))
  local last = call('ZREVRANGE', base .. 'open', 0, 0)[1]
  if last then birth = math.max(birth, birth_of(last)) end
  return string.format('%.0f', birth)
end

-- progress: how many records there ever were, and how many transactions are open
local function progress()
  local open = call('ZCARD', base .. 'open')
  local gone = tonumber(call('HGET', meta, 'forgotten') or '0')
  local ever = gone + open + call('LLEN', base .. 'finished') + call('ZCARD', base .. 'by_hand')
  return { string.format('%.0f', ever), string.format('%.0f', open) }
end

local what = ARGV[1]
if what == 'finish' then return finish() end
if what == 'ask' then return ask() end
if what == 'forget' then return forget() end
if what == 'renew' then return renew() end
if what == 'register' then return register() end
if what == 'take' then return take() end
if what == 'park' then return park() end
if what == 'tried' then return tried() end
if what == 'resolve' then return resolve() end
if what == 'oldest' then return oldest() end
if what == 'latest' then return latest() end
if what == 'ended' then return ended() end
if what == 'finished' then return finished() end
if what == 'transaction' then return rows({ ARGV[2] }) end
if what == 'youngest' then return youngest() end
if what == 'progress' then return progress() end
return redis.error_reply('UNKNOWN there is no `' .. tostring(what) .. '`: this script and its caller are of different versions')
