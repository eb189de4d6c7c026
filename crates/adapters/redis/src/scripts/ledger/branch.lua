
---------------------------------------------------------------------------------------------------------------------------
-- branch ID COLUMN ('malformed' CODE DETAIL | ACCOUNT AMOUNT ...)
--
-- COLUMN is the verb's column of the table in protocol::barrier, which decides; here it is only looked up. Two letters for each memory:
-- none, forgotten, prepared, committed, aborted, executed, compensated. The first is the action, the second the state it speaks of.

local branch, column = ARGV[2], ARGV[3]
local key = base .. 'b:' .. branch
-- The branch before any business rule: a repeat of the one that took the last unit is a repeat.
local found = call('HMGET', key, 'state', 'entries', 'code', 'detail')
local at = 1
if found[1] then
  at = ({ prepared = 5, committed = 7, aborted = 9, executed = 11, compensated = 13 })[found[1]]
elseif birth_of(branch) <= floor then
  at = 3
end
local action, letter = string.sub(column, at, at), string.sub(column, at + 1, at + 1)
local state = ({ p = 'prepared', c = 'committed', a = 'aborted', e = 'executed', x = 'compensated' })[letter]

if action == '=' then return { 'done', state } end
if action == 'V' then return { 'violation', state } end
if action == 'N' then return { 'refused', found[3] or 'aborted', found[4] or '' } end
if action == 'X' then return { 'refused', 'expired', '' } end

local function conclude(final)
  call('HSET', key, 'state', final)
  call('RPUSH', base .. 'finals', branch)
end

if action == 'P' then
  conclude(state)
  return { 'done', state }
end

-- Moves the amount of each entry from one part of its account to another. nil, or why that can't be done exactly.
local function move(entries, first, accounts, from, to)
  for i = first, #entries, 2 do
    local account = accounts[i] or find(entries[i])
    if account then
      local amount = tonumber(entries[i + 1])
      account[from] = account[from] - amount
      account[to] = account[to] + amount
      if account[from] < -MAX or account[to] > MAX then
        return redis.error_reply('INEXACT account ' .. account.id .. ' would exceed 2^53 - 1')
      end
      accounts[i] = account
    end
  end
  for i = first, #entries, 2 do
    if accounts[i] then save(accounts[i], from, to) end
  end
  return nil
end

if action == 'H' or action == 'C' then
  -- The one business rule: all of it must be available.
  local code, detail, accounts = nil, nil, {}
  if ARGV[4] == 'malformed' then
    code, detail = ARGV[5], ARGV[6]
  else
    for i = 4, #ARGV, 2 do
      accounts[i] = find(ARGV[i])
      if not accounts[i] then code, detail = 'unknown_account', ARGV[i] break end
      if tonumber(ARGV[i + 1]) > accounts[i].available then code, detail = 'insufficient', ARGV[i] break end
    end
  end
  if code then
    call('HSET', key, 'code', code, 'detail', detail)
    conclude('aborted')
    return { 'refused', code, detail }
  end
  local begun, to = 'prepared', 'held'
  if action == 'C' then begun, to = 'executed', 'settled' end
  local inexact = move(ARGV, 4, accounts, 'available', to)
  if inexact then return inexact end
  call('HSET', key, 'state', begun, 'entries', table.concat(ARGV, ' ', 4))
  call('ZADD', base .. begun, text(birth_of(branch)), branch)
  return { 'done', begun }
end

if action == 'R' then
  -- The decision is to commit and the prepared branch is gone: captured from the command's payload, whatever is available.
  if ARGV[4] == 'malformed' then return { 'violation', 'aborted' } end
  local accounts = {}
  for i = 4, #ARGV, 2 do
    accounts[i] = find(ARGV[i]) or { id = ARGV[i], generation = '0', available = 0, held = 0, settled = 0, credited = 0, debited = 0,
      price = '0', seed = '0', fresh = true }
  end
  local inexact = move(ARGV, 4, accounts, 'available', 'settled')
  if inexact then return inexact end
  conclude('committed')
  return { 'repaired', 'committed' }
end

-- What is left turns an open branch into a final one: capture, release, restore.
local final, from, to, open = 'committed', 'held', 'settled', 'prepared'
if action == 'L' then final, to = 'aborted', 'available' end
if action == 'S' then final, from, to, open = 'compensated', 'settled', 'available', 'executed' end
-- One that stands and was retired has no entries: nothing is given back, but it is remembered as compensated.
if found[2] then
  local entries = {}
  for word in string.gmatch(found[2], '%S+') do entries[#entries + 1] = word end
  local inexact = move(entries, 1, {}, from, to)
  if inexact then return inexact end
  call('ZREM', base .. open, branch)
  call('HDEL', key, 'entries')
end
conclude(final)
return { 'done', final }
