-- The orders on the server, beside the transaction log: what shop::orders::OrderBook does, each command in one step. This is what the scripts have in
-- common: it stands behind the log's own part, whose `call`, `base`, `get` and `put` it uses, and in front of claim.lua, conclude.lua and book.lua.
--
-- An order is one text: VERSION|STATE|GENERATION|USER|LINES. STATE is `o` (open), or `c` (being checked out) or `p` (paid) and the
-- transaction. LINES are ITEM QUANTITY PRICE; each.
--
-- One that only its number and its replacement tell has no USER, and LINES are its SEED: @ITEMS USERS PRICE HIGH LOW. They are drawn from that when
-- somebody needs them; a checkout does not.
--
-- `seeds` is what Replace last made of orders: generation, count, the last version before it, items, users, price, and the seed in two halves. They
-- stand newest first, and each covers more orders than those before it. An order that nobody touched since is nowhere but there: that is why a
-- million of them are replaced in one short step. One that was touched is written down, with the generation that it is of.
--
-- No amount exceeds 2^53 - 1, so Lua's doubles hold each exactly. Nothing can fail after the first write.

local MAX = 9007199254740991
local PART = 1099511627776 -- 2^40: sums without a bound are kept in two parts
local HALF = 4294967296 -- 2^32: a number of 64 bits is two of 32

local function text(number) return string.format('%.0f', number) end

-- high * 2^32 + low, times what four parts of 16 bits say, in 64 bits.
local function product(high, low, c3, c2, c1, c0)
  local a0, a1, a2, a3 = low % 65536, math.floor(low / 65536), high % 65536, math.floor(high / 65536)
  local sum = a0 * c0
  local r0 = sum % 65536
  sum = math.floor(sum / 65536) + a0 * c1 + a1 * c0
  local r1 = sum % 65536
  sum = math.floor(sum / 65536) + a0 * c2 + a1 * c1 + a2 * c0
  local r2 = sum % 65536
  sum = math.floor(sum / 65536) + a0 * c3 + a1 * c2 + a2 * c1 + a3 * c0
  return r2 + sum % 65536 * 65536, r0 + r1 * 65536
end

-- z xor (z >> by)
local function shaken(high, low, by)
  local moved = bit.bor(bit.rshift(low, by), bit.lshift(high, 32 - by))
  return bit.bxor(high, bit.rshift(high, by)) % HALF, bit.bxor(low, moved) % HALF
end

-- The number that SplitMix64 draws as the nth from a seed, spread over 0 to bound - 1.
local function draw(high, low, nth, bound)
  local h, l = product(0, nth, 0x9e37, 0x79b9, 0x7f4a, 0x7c15)
  l = l + low
  h = (h + high + math.floor(l / HALF)) % HALF
  h, l = shaken(h, l % HALF, 30)
  h, l = product(h, l, 0xbf58, 0x476d, 0x1ce4, 0xe5b9)
  h, l = shaken(h, l, 27)
  h, l = product(h, l, 0x94d0, 0x49bb, 0x1331, 0x11eb)
  h, l = shaken(h, l, 31)
  -- The upper 64 bits of the product with the bound.
  local a0, a1, a2, a3 = l % 65536, math.floor(l / 65536), h % 65536, math.floor(h / 65536)
  local b0, b1 = bound % 65536, math.floor(bound / 65536) % 65536
  local b2, b3 = math.floor(bound / HALF) % 65536, math.floor(bound / 281474976710656)
  local sum = math.floor(a0 * b0 / 65536) + a0 * b1 + a1 * b0
  sum = math.floor(sum / 65536) + a0 * b2 + a1 * b1 + a2 * b0
  sum = math.floor(sum / 65536) + a0 * b3 + a1 * b2 + a2 * b1 + a3 * b0
  sum = math.floor(sum / 65536) + a1 * b3 + a2 * b2 + a3 * b1
  local r0 = sum % 65536
  sum = math.floor(sum / 65536) + a2 * b3 + a3 * b2
  local r1 = sum % 65536
  return r0 + r1 * 65536 + (math.floor(sum / 65536) + a3 * b3) * HALF
end

-- The user and the lines of an order, drawn from its seed if that is all there is.
local function grown(id, user, lines)
  local items, users, price, high, low = string.match(lines, '^@(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not items then return user, lines end
  local n = tonumber(id)
  items, users, high, low = tonumber(items), tonumber(users), tonumber(high), tonumber(low)
  user = draw(high, low, 3 * n + 1, users)
  local one, other = draw(high, low, 3 * n + 2, items), draw(high, low, 3 * n + 3, items)
  if one == other then return text(user), text(one) .. ' 2 ' .. price .. ';' end
  return text(user), text(one) .. ' 1 ' .. price .. ';' .. text(other) .. ' 1 ' .. price .. ';'
end

-- The layers of `seeds`, read when an order asks for them first.
local layers

-- The layer of seeds that says what an order is, and its number; nil if what is written down does. Replaced ones have short numbers.
local function seed_of(id, written)
  if #id > 7 then return nil end
  if not layers then
    layers = {}
    for generation, count, before, seed in string.gmatch(get('book', 'seeds') or '', '(%d+) (%d+) (%d+) ([^;]*);') do
      layers[#layers + 1] = { generation = generation, count = tonumber(count), before = tonumber(before), seed = seed }
    end
  end
  if not layers[1] then return nil end
  local n = tonumber(id)
  for i = 1, #layers do
    local layer = layers[i]
    if n < layer.count then
      if written and string.match(written, '^%d+|[^|]*|(%d+)') == layer.generation then return nil end
      return layer, n
    end
  end
  return nil
end

-- An order's version, state, generation, user and lines; nil if there is none. Then, if what is written down is its replaced
-- predecessor, that.
local function find(id)
  local written = get('orders', id)
  local layer, n = seed_of(id, written)
  if layer then return text(layer.before + n + 1), 'o', layer.generation, '', '@' .. layer.seed, written end
  if not written then return nil end
  return string.match(written, '^(%d+)|([^|]*)|(%d+)|([^|]*)|(.*)$')
end

-- An order as it is written down, or would be, and then how many are what its seed makes of them; nil if there is none.
local function shown(id)
  local written = get('orders', id)
  local layer, n = seed_of(id, written)
  if layer then return text(layer.before + n + 1) .. '|o|' .. layer.generation .. '||@' .. layer.seed .. '|' .. text(layer.count) end
  return written or nil
end

-- What a replaced order came to, if it was paid, is added to what all before it came to: high * 2^40 + low, each step exact.
local function bury(id, order)
  local state, user, lines = string.match(order, '^%d+|([^|]*)|%d+|([^|]*)|(.*)$')
  if string.sub(state, 1, 1) ~= 'p' then return end
  user, lines = grown(id, user, lines)
  local cost = 0
  local function add(field, amount)
    local high, low = string.match(get('replaced', field) or '0 0', '^(%d+) (%d+)$')
    low = tonumber(low) + amount % PART
    high = tonumber(high) + math.floor(amount / PART) + math.floor(low / PART)
    put('replaced', field, text(high) .. ' ' .. text(low % PART))
  end
  for item, quantity, price in string.gmatch(lines, '(%S+) (%d+) (%d+);') do
    cost = cost + tonumber(quantity) * tonumber(price)
    -- Line by line: only each of them is sure to be held exactly.
    add('i' .. item, tonumber(quantity))
  end
  add('u' .. user, cost)
  put('replaced', 'orders', text(tonumber(get('replaced', 'orders') or '0') + 1))
end

-- Has an order written down, by `write_all`.
local function write(id, version, state, generation, user, lines, predecessor)
  if predecessor then bury(id, predecessor) end
  put('orders', id, version .. '|' .. state .. '|' .. generation .. '|' .. user .. '|' .. lines)
end
