
---------------------------------------------------------------------------------------------------------------------------
-- The number of the CONNECTION; and for each command the number of its words, and those. The answer has a part for each.
--
--   stage ID INSTANCE EPOCH TRANSACTION PAYLOADS CLAIM ...
--   decide ID INSTANCE EPOCH DECISION NOW
--   look ...
--
-- What one does, those behind it see. Whatever they change is written together, at the end.

-- Leases do not change here: each is looked at once.
local fences = {}
local function is_fenced_here(instance, epoch)
  local lease = instance .. ' ' .. epoch
  if fences[lease] == nil then fences[lease] = is_fenced(instance, epoch) end
  return fences[lease]
end

local opened = {}

local function stage(at)
  local id, instance = ARGV[at], ARGV[at + 1]
  local decided = decision_of(get('records', id))
  -- The record before the epoch, and the epoch before anything is changed.
  if decided == '' then return 'staged' end
  if decided then return { 'refused', 'decided' } end
  if is_forgotten(id) then return { 'refused', 'expired' } end
  if is_fenced_here(instance, ARGV[at + 2]) then return { 'refused', 'fenced' } end
  local note, code, detail = claim(id, at + 5)
  if not note then return { 'refused', 'application', code, detail } end
  put('records', id, instance .. '|||' .. note .. '\n' .. ARGV[at + 3])
  put('payloads', id, ARGV[at + 4])
  opened[#opened + 1], opened[#opened + 2] = '0', id
  return 'staged'
end

local function decide(at)
  local id, decision = ARGV[at], ARGV[at + 3]
  local record = get('records', id)
  local standing = decision_of(record)
  if standing and standing ~= '' then return { 'decided', standing, '0' } end
  if is_fenced_here(ARGV[at + 1], ARGV[at + 2]) then return 'fenced' end
  local commit = string.sub(decision, 1, 1) == 'c'
  if record then
    local _, header, owner, note = string.find(record, '^([^|]*)|||([^\n]*)')
    local decided = owner .. '|' .. decision .. '@' .. ARGV[at + 4] .. '||' .. note .. string.sub(record, header + 1)
    conclude(id, note, commit)
    put('records', id, decided)
    return { 'decided', decision, '1' }
  end
  if commit then return 'not_staged' end
  if is_forgotten(id) then return { 'decided', decision, '0' } end
  entomb(id, decision, ARGV[at + 4])
  -- As it is written now.
  known.records[id] = nil
  return { 'decided', decision, '1' }
end

local carry_out = { stage = stage, decide = decide, look = look }

-- A command that cannot be carried out does not concern the others.
local replies, at = {}, 2
while ARGV[at] do
  local well, reply = pcall(carry_out[ARGV[at + 1]], at + 2)
  if not well then reply = redis.error_reply('ERR ' .. (type(reply) == 'table' and reply.err or tostring(reply))) end
  replies[#replies + 1] = reply or false
  at = at + 1 + tonumber(ARGV[at])
end
write_all()
for first = 1, #opened, 1000 do
  call('ZADD', base .. 'open', unpack(opened, first, math.min(#opened, first + 999)))
end
return replies
