
---------------------------------------------------------------------------------------------------------------------------
-- Everything that orders are told and asked, and that is no command to the log.

-- Answers a command with KEY FINGERPRINT AT LEAST MOST YOUNG, which begin at this word, once: a repeat gets the first answer, if that was a success.
local function keyed(first, change)
  local key, fingerprint = ARGV[first], ARGV[first + 1]
  if not key then return change() end
  local remembered = call('HGET', base .. 'keys', key)
  if remembered then
    local of, word, value = string.match(remembered, '^(%S+) (%S+) (%S+)$')
    if of ~= fingerprint then return { 'reused' } end
    return { word, value }
  end
  local reply = change()
  if reply[1] == 'created' or reply[1] == 'total' then
    remember_key(key, fingerprint .. ' ' .. reply[1] .. ' ' .. reply[2], unpack(ARGV, first + 2, first + 5))
  end
  return reply
end

local function next_version() return text(call('HINCRBY', base .. 'book', 'version', 1)) end

-- create ORDER USER
local function create()
  local order = ARGV[2]
  if not find(order) then
    write(order, next_version(), 'o', '0', ARGV[3], '')
    write_all()
  end
  return { 'created', order }
end

-- add ORDER ITEM QUANTITY PRICE MOST_LINES
local function add()
  local order, item, quantity, price = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
  local version, state, generation, user, lines, predecessor = find(order)
  if not version then return { 'not_found' } end
  if state ~= 'o' then return { 'not_open', state } end
  user, lines = grown(order, user, lines)
  -- Units of one item at another price stand in a line of their own: one line would lie about what they cost.
  local total, count, parts, same, held = quantity * tonumber(price), 0, {}, nil, 0
  for of, units, each in string.gmatch(lines, '(%S+) (%d+) (%d+);') do
    count = count + 1
    parts[count] = of .. ' ' .. units .. ' ' .. each .. ';'
    total = total + tonumber(units) * tonumber(each)
    if of == item and each == price then same, held = count, tonumber(units) end
  end
  if total > MAX or held + quantity > MAX then return { 'overflow' } end
  if not same and count >= tonumber(ARGV[6]) then return { 'too_many_lines' } end
  parts[same or count + 1] = item .. ' ' .. text(held + quantity) .. ' ' .. price .. ';'
  write(order, next_version(), 'o', generation, user, table.concat(parts), predecessor)
  write_all()
  return { 'total', text(total), get('orders', order) }
end

-- replace VALID COUNT ITEMS USERS PRICE HIGH LOW MOST_LAYERS
local function replace()
  local open = call('ZCARD', base .. 'open')
  if open > 0 then return { 'busy', text(open) } end
  if ARGV[2] ~= '1' then return { 'overflow' } end
  local count = tonumber(ARGV[3])
  if count == 0 then return { 'ok' } end
  local newest, kept = 0, {}
  for layer, generation, covers in string.gmatch(call('HGET', base .. 'book', 'seeds') or '', '((%d+) (%d+) [^;]*;)') do
    newest = math.max(newest, tonumber(generation))
    if tonumber(covers) > count then kept[#kept + 1] = layer end
  end
  if #kept >= tonumber(ARGV[9]) then
    return redis.error_reply('LAYERS too many replacements of ever fewer orders: replace at least as many as once before')
  end
  local before = call('HGET', base .. 'book', 'version') or '0'
  local seed = table.concat({ text(newest + 1), ARGV[3], before, ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8] }, ' ')
  call('HSET', base .. 'book', 'seeds', seed .. ';' .. table.concat(kept), 'version', text(tonumber(before) + count))
  return { 'ok' }
end

-- is_reused KEY FINGERPRINT
local function is_reused()
  local remembered = call('HGET', base .. 'keys', ARGV[2])
  return remembered and string.match(remembered, '^%S+') ~= ARGV[3] and '1' or '0'
end

-- What the log says of the transaction that has claimed or paid an order: `f` if it is forgotten, `?` if it never was, `#` if it is about another order,
-- '' if it is undecided, or the decision.
local function word_of(transaction, order)
  local record = call('HGET', base .. 'records', transaction)
  if not record then return is_forgotten(transaction) and 'f' or '?' end
  if string.match(record, '^[^|]*|[^|]*|[^|]*|([^\n]*)') ~= order then return '#' end
  return decision_of(record)
end

-- page CURSOR COUNT: the orders that are written down, paid ones and claimed ones: each with its state, user and lines, and what the log says
-- of the transaction; how many were buried; and how many were looked at, open ones included
local function page()
  local found = call('HSCAN', base .. 'orders', ARGV[2], 'COUNT', ARGV[3])
  local written, rows = found[2], {}
  for i = 1, #written, 2 do
    local state, user, lines = string.match(written[i + 1], '^%d+|([^|]*)|%d+|([^|]*)|(.*)$')
    if state ~= 'o' then
      rows[#rows + 1] = { written[i], state, user, lines, word_of(string.sub(state, 2), written[i]) }
    end
  end
  return { found[1], rows, call('HGET', base .. 'replaced', 'orders') or '0', text(#written / 2) }
end

-- replaced CURSOR COUNT: what the paid orders that were replaced came to, as `orders` and how many, or `u`
-- and a user or `i` and an item, and the sum's two parts
local function replaced()
  local found = call('HSCAN', base .. 'replaced', ARGV[2], 'COUNT', ARGV[3])
  return { found[1], found[2], call('HGET', base .. 'replaced', 'orders') or '0' }
end

-- note NOTE MOST: one more entry of the operators' trail; the oldest goes when there are more than MOST
local function note()
  local number = call('HINCRBY', base .. 'book', 'trail', 1)
  call('HSET', base .. 'trail', text(number), ARGV[2])
  local oldest = text(number - tonumber(ARGV[3]))
  call('HDEL', base .. 'trail', oldest)
  call('HDEL', base .. 'trail_outcomes', oldest)
  return { 'noted', text(number) }
end

-- note_outcome NUMBER OUTCOME: what came of it; the first word stands
local function note_outcome()
  if call('HEXISTS', base .. 'trail', ARGV[2]) == 0 then return { 'not_found' } end
  call('HSETNX', base .. 'trail_outcomes', ARGV[2], ARGV[3])
  return { 'ok' }
end

-- trail MOST: the latest entries of the trail, the latest first: each its number, its note, and its outcome or nil
local function trail()
  local last, rows = tonumber(call('HGET', base .. 'book', 'trail') or '0'), {}
  for number = last, math.max(1, last - tonumber(ARGV[2]) + 1), -1 do
    local written = call('HGET', base .. 'trail', text(number))
    if not written then break end
    rows[#rows + 1] = { text(number), written, call('HGET', base .. 'trail_outcomes', text(number)) }
  end
  return rows
end

local what = ARGV[1]
if what == 'create' then return keyed(4, create) end
if what == 'add' then return keyed(7, add) end
if what == 'remember' then return keyed(3, function() return { 'created', ARGV[2] } end) end
if what == 'replace' then return replace() end
if what == 'is_reused' then return is_reused() end
if what == 'page' then return page() end
if what == 'replaced' then return replaced() end
if what == 'note' then return note() end
if what == 'note_outcome' then return note_outcome() end
if what == 'trail' then return trail() end
if what == 'buried' then return call('HGET', base .. 'replaced', 'orders') or '0' end
return redis.error_reply('UNKNOWN there is no `' .. tostring(what) .. '`: this script and its caller are of different versions')
