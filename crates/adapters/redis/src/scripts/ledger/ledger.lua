
---------------------------------------------------------------------------------------------------------------------------
-- change ('open' ID PRICE | 'credit' ID AMOUNT | 'debit' ID AMOUNT) [KEY FINGERPRINT AT LEAST MOST YOUNG]

local function change()
  local kind, id = ARGV[2], ARGV[3]
  local account = find(id)
  if kind == 'open' then
    if not account then
      account = blank(id, ARGV[4])
      save(account)
    end
    return account
  end
  if not account then return nil, 'unknown_account' end
  local amount = tonumber(ARGV[4])
  if kind == 'credit' then
    if account.credited + amount > MAX then return nil, 'overflow' end
    account.credited = account.credited + amount
    account.available = account.available + amount
    save(account)
  else
    if amount > account.available then return nil, 'insufficient' end
    account.debited = account.debited + amount
    account.available = account.available - amount
    save(account)
  end
  return account
end

local function keyed()
  local name, fingerprint = ARGV[5], ARGV[6]
  if name then
    local remembered = call('HGET', base .. 'keys', name)
    if remembered then
      local words = {}
      for word in string.gmatch(remembered, '%S+') do words[#words + 1] = word end
      if words[1] ~= fingerprint then return { 'reused' } end
      words[1] = 'account'
      return words
    end
  end
  local account, denial = change()
  if not account then return { 'denied', denial } end
  write_accounts()
  local reply = answer(account)
  if name then
    remember_key(name, fingerprint .. ' ' .. table.concat(reply, ' ', 2), ARGV[7], ARGV[8], ARGV[9], ARGV[10])
  end
  return reply
end

---------------------------------------------------------------------------------------------------------------------------
-- retire BRANCH ...

local function retire()
  for i = 2, #ARGV do
    if call('ZREM', base .. 'executed', ARGV[i]) == 1 then
      call('HSET', base .. 'branches', ARGV[i], 'e')
      call('RPUSH', base .. 'finals', ARGV[i])
    end
  end
  return { 'ok' }
end

---------------------------------------------------------------------------------------------------------------------------
-- replace COUNT AVAILABLE PRICE HIGH LOW MOST_ACCOUNTS MOST_LAYERS, where HIGH * 2^40 + LOW = COUNT * AVAILABLE

local function replace()
  local open = call('ZCARD', base .. 'prepared') + call('ZCARD', base .. 'executed')
  if open > 0 then return { 'busy', text(open) } end
  local count, available = tonumber(ARGV[2]), tonumber(ARGV[3])
  if available < 0 or available > MAX or count > tonumber(ARGV[7]) then return { 'denied', 'overflow' } end
  if count == 0 then return { 'ok' } end
  local newest, kept, layers = 0, {}, 1
  for generation, covers, has, price in string.gmatch(seeds or '', '(%d+) (%d+) (%d+) (%-?%d+);') do
    newest = math.max(newest, tonumber(generation))
    if tonumber(covers) > count then
      kept[#kept + 1] = generation .. ' ' .. covers .. ' ' .. has .. ' ' .. price .. ';'
      layers = layers + 1
    end
  end
  if layers > tonumber(ARGV[8]) then
    return redis.error_reply('LAYERS too many replacements of ever fewer accounts: replace at least as many as once before')
  end
  local sums = call('HMGET', meta, 'seeded_high', 'seeded_low')
  local low = tonumber(sums[2] or '0') + tonumber(ARGV[6])
  local high = tonumber(sums[1] or '0') + tonumber(ARGV[5]) + math.floor(low / PART)
  local seed = text(newest + 1) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ';'
  call('HSET', meta, 'seeds', seed .. table.concat(kept), 'seeded_high', text(high), 'seeded_low', text(low % PART))
  return { 'ok' }
end

---------------------------------------------------------------------------------------------------------------------------
-- forget BORN_BEFORE KEEP SPARE_SINCE HOW_MANY_AT_ONCE: 'more' if it should be called again

local function forget()
  local born_before, keep, spare_since = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local length = call('LLEN', base .. 'finals')
  local oldest = call('LRANGE', base .. 'finals', '0', tonumber(ARGV[5]) - 1)
  local gone, risen = 0, floor
  for i = 1, #oldest do
    local birth = birth_of(oldest[i])
    local surplus = length - gone > keep and birth < spare_since
    if birth >= born_before and not surplus then break end
    gone = i
    risen = math.max(risen, birth)
  end
  if gone > 0 then call('HDEL', base .. 'branches', unpack(oldest, 1, gone)) end
  if gone > 0 then call('LTRIM', base .. 'finals', text(gone), '-1') end
  if risen > floor then call('HSET', meta, 'floor', text(risen)) end
  return { 'ok', gone > 0 and gone == #oldest and gone < length and 'more' or 'all' }
end

---------------------------------------------------------------------------------------------------------------------------
-- Questions.

-- branches BRANCH ...: each as it is written down
local function branches() return call('HMGET', base .. 'branches', unpack(ARGV, 2)) end

-- open PREPARED_BEFORE EXECUTED_BEFORE LIMIT
local function open()
  local prepared = call('ZRANGEBYSCORE', base .. 'prepared', '-inf', '(' .. ARGV[2], 'LIMIT', '0', ARGV[4])
  local executed = call('ZRANGEBYSCORE', base .. 'executed', '-inf', '(' .. ARGV[3], 'LIMIT', '0', ARGV[4])
  return { prepared, executed }
end

-- youngest: asked once at a start, so that nothing has to be kept up for it
local function youngest()
  local birth = floor
  for _, set in ipairs({ 'prepared', 'executed' }) do
    local last = call('ZREVRANGE', base .. set, '0', '0')[1]
    if last then birth = math.max(birth, birth_of(last)) end
  end
  for _, branch in ipairs(call('LRANGE', base .. 'finals', '0', '-1')) do birth = math.max(birth, birth_of(branch)) end
  return text(birth)
end

-- page CURSOR HOW_MANY: written accounts, each with what its predecessors did, and the seeds of that moment. One may stand on two pages.
local function page()
  local found = call('HSCAN', base .. 'accounts', ARGV[2], 'COUNT', ARGV[3])
  local written, ids, rows = found[2], {}, {}
  for i = 1, #written, 2 do ids[#ids + 1] = written[i] end
  local past = ids[1] and call('HMGET', base .. 'past', unpack(ids)) or {}
  for i = 1, #ids do
    local generation, seed, available, held, settled, credited, debited, price = unpacked(ACCOUNT, written[2 * i])
    rows[i] = { text(generation), text(seed), string.sub(written[2 * i], price), text(available), text(held), text(settled),
      text(credited), text(debited), past[i] }
  end
  local sums = call('HMGET', meta, 'seeded_high', 'seeded_low')
  return { seeds or '', sums[1] or '0', sums[2] or '0', ids, rows, found[1] }
end

-- holds ACCOUNT ...: of these accounts, and of those that an open prepared branch names, each with what it holds and what those
-- branches say that it holds; all at one moment
local function holds()
  local held, sums, names = {}, {}, {}
  for _, branch in ipairs(call('ZRANGE', base .. 'prepared', '0', '-1')) do
    local written = call('HGET', base .. 'branches', branch) or ''
    for id, amount in string.gmatch(string.sub(written, 2), '(%S+) (%d+)') do
      if not sums[id] then names[#names + 1] = id end
      sums[id] = (sums[id] or 0) + tonumber(amount)
    end
  end
  local function held_by(id)
    local account = find(id)
    return account and text(account.held) or '0'
  end
  for i = 2, #ARGV do
    held[#held + 1], held[#held + 2], held[#held + 3] = ARGV[i], held_by(ARGV[i]), text(sums[ARGV[i]] or 0)
    sums[ARGV[i]] = nil
  end
  for i = 1, #names do
    if sums[names[i]] then
      held[#held + 1], held[#held + 2], held[#held + 3] = names[i], held_by(names[i]), text(sums[names[i]])
    end
  end
  return held
end

-- standing MOST_BRANCHES MOST_ENTRIES ACCOUNT ...: of these accounts, and of those that an open prepared branch names, all at one moment: what each
-- holds, what those branches say that it holds, whether any open branch names it, what it has settled, what its replaced predecessor had that
-- nobody has buried yet, and what those before that did. Nothing but `busy` if there are too many branches to look at.
local function standing()
  local most, room = tonumber(ARGV[2]), tonumber(ARGV[3])
  if call('ZCARD', base .. 'prepared') + call('ZCARD', base .. 'executed') > most then return 'busy' end
  local promised, touched, asked, ids, rows = {}, {}, {}, {}, {}
  for i = 4, #ARGV do
    asked[ARGV[i]] = true
    ids[#ids + 1] = ARGV[i]
  end
  for _, set in ipairs({ 'prepared', 'executed' }) do
    local open = call('ZRANGE', base .. set, '0', '-1')
    local written = open[1] and call('HMGET', base .. 'branches', unpack(open)) or {}
    for i = 1, #open do
      for id, amount in string.gmatch(string.sub(written[i] or '', 2), '(%S+) (%d+)') do
        room = room - 1
        if room < 0 then return 'busy' end
        touched[id] = true
        if set == 'prepared' then
          promised[id] = (promised[id] or 0) + tonumber(amount)
          if not asked[id] then
            asked[id] = true
            ids[#ids + 1] = id
          end
        end
      end
    end
  end
  fields('accounts', ids, ahead)
  local past = {}
  fields('past', ids, past)
  for i = 1, #ids do
    local id = ids[i]
    local account = find(id)
    local stale = account and account.stale
    rows[i] = { id, account and text(account.held) or '0', text(promised[id] or 0), touched[id] and '1' or '0',
      account and text(account.settled) or '0', stale and text(stale.settled) or '0', past[id] or '' }
  end
  return rows
end

-- outcomes BRANCH ...: what became of each, as its letter, and the floor
local function outcomes()
  local written, letters = ARGV[2] and call('HMGET', base .. 'branches', unpack(ARGV, 2)), {}
  for i = 1, #ARGV - 1 do letters[i] = written[i] and string.sub(written[i], 1, 1) or '-' end
  return { table.concat(letters), text(floor) }
end

local what = ARGV[1]
if what == 'change' then return keyed() end
if what == 'retire' then return retire() end
if what == 'forget' then return forget() end
if what == 'replace' then return replace() end
if what == 'branches' then return branches() end
if what == 'open' then return open() end
if what == 'youngest' then return youngest() end
if what == 'page' then return page() end
if what == 'holds' then return holds() end
if what == 'standing' then return standing() end
if what == 'outcomes' then return outcomes() end
return redis.error_reply('UNKNOWN there is no `' .. tostring(what) .. '`: this script and its caller are of different versions')
