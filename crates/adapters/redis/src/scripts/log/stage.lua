
---------------------------------------------------------------------------------------------------------------------------
-- stage ID INSTANCE EPOCH TRANSACTION PAYLOADS CLAIM ...

local id = ARGV[1]
local decided = decision_of(call('HGET', base .. 'records', id))
-- The record before the epoch, and the epoch before anything is changed.
if decided == '' then return 'staged' end
if decided then return { 'refused', 'decided' } end
if is_forgotten(id) then return { 'refused', 'expired' } end
if is_fenced(ARGV[2], ARGV[3]) then return { 'refused', 'fenced' } end
local note, code, detail = claim(id, 6)
if not note then return { 'refused', 'application', code, detail } end
call('HSET', base .. 'records', id, ARGV[2] .. '|||' .. note .. '\n' .. ARGV[4])
call('HSET', base .. 'payloads', id, ARGV[5])
call('ZADD', base .. 'open', '0', id)
return 'staged'
