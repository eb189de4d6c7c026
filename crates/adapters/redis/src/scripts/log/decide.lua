
---------------------------------------------------------------------------------------------------------------------------
-- decide ID INSTANCE EPOCH DECISION NOW

local id, decision = ARGV[1], ARGV[4]
local record = call('HGET', base .. 'records', id)
local standing = decision_of(record)
if standing and standing ~= '' then return { 'decided', standing, '0' } end
if is_fenced(ARGV[2], ARGV[3]) then return 'fenced' end
local commit = string.sub(decision, 1, 1) == 'c'
if record then
  local owner, note, transaction = string.match(record, '^([^|]*)|||([^\n]*)\n(.*)$')
  call('HSET', base .. 'records', id, owner .. '|' .. decision .. '@' .. ARGV[5] .. '||' .. note .. '\n' .. transaction)
  conclude(id, note, commit)
  return { 'decided', decision, '1' }
end
if commit then return 'not_staged' end
if is_forgotten(id) then return { 'decided', decision, '0' } end
entomb(id, decision, ARGV[5])
return { 'decided', decision, '1' }
