-- The transaction log on the server: the commands of protocol::log::LogState, each applied in one step. This is what its scripts have in
-- common: it stands in front of commands.lua and log.lua, and of scripts of the application that look into the log. Behind it, in front of
-- commands.lua, stands the application's part: what a transaction claims, and what becomes of the claim.
--
--   KEYS[1]   BASE .. 'meta', where BASE is such as '{settle:orders:0}:'. All other keys begin with the same BASE.
--
-- A record is one text: OWNER|DECISION@TIME|FINISHED|NOTE, a line feed, and the transaction without its payloads, as bytes that nobody here
-- reads. A tombstone has no owner and no transaction. DECISION is `c`, or `a` and the cause. NOTE is the application's: what was claimed.
--
-- Times but those of leases are compared only, and kept as they came. Nothing can fail after the first write: every path reads and decides first, and
-- writes then.

local call = redis.call
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)

local function birth_of(id)
  return tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
end

-- The fields of hashes as this script knows them, by hash: false for what is not there; and which of them are to be written.
local known, changed = {}, {}

local function get(hash, field)
  local fields = known[hash]
  if not fields then
    fields = {}
    known[hash] = fields
  end
  local value = fields[field]
  if value == nil then
    value = call('HGET', base .. hash, field)
    fields[field] = value
  end
  return value
end

-- Has a field written by `write_all`: what many commands change is one write on the server, and on its replicas.
local function put(hash, field, value)
  local fields, names = known[hash], changed[hash]
  if not fields then
    fields = {}
    known[hash] = fields
  end
  if not names then
    names = {}
    changed[hash] = names
  end
  fields[field] = value
  names[field] = true
end

local function write_all()
  for hash, names in pairs(changed) do
    local written, fields = {}, known[hash]
    for field in pairs(names) do
      written[#written + 1], written[#written + 2] = field, fields[field]
      -- Lua's stack has room for 8000.
      if #written == 1000 then
        call('HSET', base .. hash, unpack(written))
        written = {}
      end
    end
    if written[1] then call('HSET', base .. hash, unpack(written)) end
  end
end

-- Whether the floor is above this: a transaction without a record is forgotten then. It never rises while one is asked about.
local floor
local function is_forgotten(id)
  floor = floor or tonumber(call('HGET', meta, 'floor') or '0')
  return birth_of(id) <= floor
end

local function is_fenced(instance, epoch)
  local lease = call('HGET', base .. 'instances', instance)
  return not lease or string.match(lease, '^%d+') ~= epoch
end

-- What is decided: nil if there is no record, '' if it is undecided.
local function decision_of(record)
  return record and string.match(record, '^[^|]*|([^|@]*)')
end

-- Remembers that a transaction of this birth is known; those that are open tell that themselves.
local function remember(birth)
  if birth > tonumber(call('HGET', meta, 'youngest') or '0') then
    call('HSET', meta, 'youngest', string.format('%.0f', birth))
  end
end

-- Remembers as aborted what was never staged, so that a late stage fails.
local function entomb(id, decision, now)
  call('HSET', base .. 'records', id, '|' .. decision .. '@' .. now .. '|' .. now .. '|\n')
  call('RPUSH', base .. 'finished', id .. ' ' .. now)
  remember(birth_of(id))
end
