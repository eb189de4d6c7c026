-- The ledger on the server: the commands of ledger::Ledger, each applied in one step. Stock and payment run these very scripts. This is
-- what they have in common: it stands in front of branches.lua and account.lua, which are called most, and of ledger.lua, which has all the
-- rest. Every call makes its functions anew, so a script has few of them.
--
--   KEYS[1]   BASE .. 'meta', where BASE is such as '{settle:stock:0}:'. All other keys begin with the same BASE, so they
--             live on the same node; which they are is known only when the branch has been looked at.
--   ARGV      the commands; what each is made of is told there.
--
-- A script takes many commands, and speaks to the server's tables a few times only, however many they are: it reads what they are about,
-- carries them out one after the other in its own tables, and writes what has changed. So it costs a few microseconds a command here, and
-- little more than the bytes on the replicas, which are sent what was written.
--
-- An account is seven doubles (generation, seed, available, held, settled, credited, debited) and its price in digits. A branch is the
-- letter of its state (p, c, a, e, x) and behind it: its entries while it is open, as ACCOUNT AMOUNT …; code and detail if it was refused.
--
-- Numbers. No amount, balance or sum here exceeds 2^53 - 1, so Lua's doubles hold them exactly; what would not fit is refused before
-- anything is written. Sums without a bound are kept in two parts. A number is shown by `text`, never by tostring, which rounds to 14
-- digits.
--
-- Nothing can fail after the first write: every path reads and decides first, and writes then.

local call = redis.call
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)
local MAX = 9007199254740991
local PART = 1099511627776 -- 2^40
-- How many words are handed to one command of the server: Lua's stack has room for 8000.
local SLICE = 1000
local ACCOUNT = '<ddddddd'
local pack, unpacked = struct.pack, struct.unpack
local known = call('HMGET', meta, 'floor', 'seeds')
local floor = tonumber(known[1] or '0')
local seeds = known[2]

local function text(number) return string.format('%.0f', number) end

local function birth_of(branch)
  return tonumber(string.sub(branch, 1, 8) .. string.sub(branch, 10, 13), 16)
end

-- What `replace` last made of accounts. The layers stand newest first, and each covers more accounts than those before it. An account that
-- nobody touched since is nowhere but there: that is why a million of them are replaced in one short step.
local layers = {}
for generation, count, available, price in string.gmatch(seeds or '', '(%d+) (%d+) (%d+) (%-?%d+);') do
  layers[#layers + 1] = { tonumber(generation), tonumber(count), tonumber(available), price }
end

-- The fields of a hash as the server has them, by name: false where there is none. `names` are many or few.
local function fields(hash, names, found)
  for first = 1, #names, SLICE do
    local last = math.min(#names, first + SLICE - 1)
    local values = call('HMGET', base .. hash, unpack(names, first, last))
    for i = first, last do found[names[i]] = values[i - first + 1] end
  end
end

-- Writes fields and their values, in turn.
local function write(hash, pairs)
  for first = 1, #pairs, SLICE do
    call('HSET', base .. hash, unpack(pairs, first, math.min(#pairs, first + SLICE - 1)))
  end
end

-- Accounts that this script has looked at, false for those that do not exist; those that are to be written; what was read of them ahead.
local accounts, changed, ahead = {}, {}, {}

-- An account, or nil. `fresh`: as it is, it is not written down. `stale`: what is written down is its replaced predecessor.
local function find(id)
  local account = accounts[id]
  if account ~= nil then return account or nil end
  local written, generation = ahead[id], nil
  if written == nil then written = call('HGET', base .. 'accounts', id) end
  account = false
  if written then
    local seed, available, held, settled, credited, debited, price
    generation, seed, available, held, settled, credited, debited, price = unpacked(ACCOUNT, written)
    account = { id = id, generation = generation, seed = seed, available = available, held = held, settled = settled,
      credited = credited, debited = debited, price = string.sub(written, price) }
  end
  if layers[1] and #id <= 7 then
    local n = tonumber(id)
    for i = 1, #layers do
      local layer = layers[i]
      if n < layer[2] then
        if generation ~= layer[1] then
          account = { id = id, generation = layer[1], seed = layer[3], available = layer[3], held = 0, settled = 0,
            credited = layer[3], debited = 0, price = layer[4], stale = account }
        end
        break
      end
    end
  end
  accounts[id] = account
  return account or nil
end

-- An account that is nowhere yet.
local function blank(id, price)
  return { id = id, generation = 0, seed = 0, available = 0, held = 0, settled = 0, credited = 0, debited = 0, price = price }
end

-- Has an account written at the end.
local function save(account)
  if not account.saved then
    account.saved = true
    accounts[account.id] = account
    changed[#changed + 1] = account
  end
end

-- What the replaced predecessor of an account did beyond its seed is added to what all before it did: high * 2^40 + low, each step exact.
local function bury(id, stale)
  local parts, at = {}, 1
  for part in string.gmatch(call('HGET', base .. 'past', id) or '0 0 0 0 0 0', '%d+') do parts[#parts + 1] = tonumber(part) end
  for _, did in ipairs({ stale.credited - stale.seed, stale.settled, stale.debited }) do
    local low = parts[at + 1] + did % PART
    parts[at], parts[at + 1] = text(parts[at] + math.floor(did / PART) + math.floor(low / PART)), text(low % PART)
    at = at + 2
  end
  return table.concat(parts, ' ')
end

-- Writes the accounts that have changed.
local function write_accounts()
  local pairs, past = {}, {}
  for i = 1, #changed do
    local of = changed[i]
    pairs[2 * i - 1] = of.id
    pairs[2 * i] = pack(ACCOUNT, of.generation, of.seed, of.available, of.held, of.settled, of.credited, of.debited) .. of.price
    if of.stale then past[#past + 1], past[#past + 2] = of.id, bury(of.id, of.stale) end
  end
  write('past', past)
  write('accounts', pairs)
end

local function answer(account)
  return { 'account', account.id, text(account.available), text(account.held), text(account.settled),
    text(account.credited), text(account.debited), account.price }
end
