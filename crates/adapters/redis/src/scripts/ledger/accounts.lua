-- The ledger on the server: the commands of ledger::Ledger, each applied in one step. Stock and payment run these very scripts. This is
-- what they have in common: it stands in front of branch.lua and account.lua, which are called most, and of ledger.lua, which has all the
-- rest. Every call makes its functions anew, so a script has few of them.
--
--   KEYS[1]   BASE .. 'meta', where BASE is such as '{settle:stock:0}:'. All other keys begin with the same BASE, so they
--             live on the same node; which they are is known only when the branch has been looked at.
--   ARGV[1]   what to do; the rest are its arguments, as told there.
--
-- Numbers. No amount, balance or sum here exceeds 2^53 - 1, so Lua's doubles hold them exactly; what would not fit is refused before
-- anything is written. Sums without a bound are kept in two parts. A number is written by `text`, never by tostring, which rounds to 14
-- digits.
--
-- Nothing can fail after the first write: every path reads and decides first, and writes then.

local call = redis.call
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)
local MAX = 9007199254740991
local PART = 1099511627776 -- 2^40
local known = call('HMGET', meta, 'floor', 'seeds')
local floor = tonumber(known[1] or '0')
local seeds = known[2]

local function text(number) return string.format('%.0f', number) end

local function birth_of(branch)
  return tonumber(string.sub(branch, 1, 8) .. string.sub(branch, 10, 13), 16)
end

-- An account, or nil. `fresh`: as it is, it is not written down. `stale`: what is written down is its replaced predecessor.
--
-- `seeds` is what `replace` last made of accounts: generation, count, what each has available, a price. They stand newest first, and
-- each covers more accounts than those before it. An account that nobody touched since is nowhere but there: that is why a million of
-- them are replaced in one short step.
local function find(id)
  local r = call('HMGET', base .. 'a:' .. id, 'generation', 'available', 'held', 'settled', 'credited', 'debited', 'price')
  if seeds and #id <= 7 then
    local n, at = tonumber(id), 1
    while true do
      local _, last, generation, count, available, price = string.find(seeds, '^(%d+) (%d+) (%d+) (%-?%d+);', at)
      if not last then break end
      if n < tonumber(count) then
        if r[1] == generation then break end
        local seeded = tonumber(available)
        return { id = id, generation = generation, available = seeded, held = 0, settled = 0, credited = seeded, debited = 0,
          price = price, seed = available, fresh = true, stale = r[1] }
      end
      at = last + 1
    end
  end
  if not r[1] then return nil end
  return { id = id, available = tonumber(r[2]), held = tonumber(r[3]), settled = tonumber(r[4]),
    credited = tonumber(r[5]), debited = tonumber(r[6]), price = r[7] }
end

-- Writes an account of which the fields `first` and `second` have changed.
local function save(account, first, second)
  local key = base .. 'a:' .. account.id
  if not account.fresh then
    call('HSET', key, first, text(account[first]), second, text(account[second]))
    return
  end
  if account.stale then
    -- What the replaced predecessor did beyond its seed is added to what all before it did: high * 2^40 + low, each step exact.
    local names = { 'past_credited', 'past_settled', 'past_debited' }
    local r = call('HMGET', key, 'seed', 'credited', 'settled', 'debited', 'past_credited_high', 'past_credited_low',
      'past_settled_high', 'past_settled_low', 'past_debited_high', 'past_debited_low')
    local did = { tonumber(r[2]) - tonumber(r[1]), tonumber(r[3]), tonumber(r[4]) }
    for i = 1, 3 do
      local low = tonumber(r[4 + 2 * i] or '0') + did[i] % PART
      local high = tonumber(r[3 + 2 * i] or '0') + math.floor(did[i] / PART) + math.floor(low / PART)
      call('HSET', key, names[i] .. '_high', text(high), names[i] .. '_low', text(low % PART))
    end
  end
  call('HSET', key, 'generation', account.generation, 'seed', account.seed, 'price', account.price,
    'available', text(account.available), 'held', text(account.held), 'settled', text(account.settled),
    'credited', text(account.credited), 'debited', text(account.debited))
  call('ZADD', base .. 'accounts', '0', account.id)
end

local function answer(account)
  return { 'account', account.id, text(account.available), text(account.held), text(account.settled),
    text(account.credited), text(account.debited), account.price }
end
