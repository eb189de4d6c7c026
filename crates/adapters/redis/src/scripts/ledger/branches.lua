
---------------------------------------------------------------------------------------------------------------------------
-- CONNECTION, and for each command the number of its words, and those: BRANCH BIRTH COLUMN ('malformed' CODE DETAIL | ACCOUNT AMOUNT ...)
-- The answer has a part for each.
--
-- COLUMN is the verb's column of the table in protocol::barrier, which decides; here it is only looked up. Two letters for each memory:
-- none, forgotten, prepared, committed, aborted, executed, compensated. The first is the action, the second the state it speaks of.

local AT = { p = 5, c = 7, a = 9, e = 11, x = 13 }
local STATE = { p = 'prepared', c = 'committed', a = 'aborted', e = 'executed', x = 'compensated' }
local DONE, VIOLATION = {}, {}
for letter, state in pairs(STATE) do
  DONE[letter], VIOLATION[letter] = { 'done', state }, { 'violation', state }
end
local REPAIRED, EXPIRED = { 'repaired', 'committed' }, { 'refused', 'expired', '' }

-- Branches that this script has looked at, false for those that are not remembered; and what is to be written.
local branches = {}
local remembered, finals, opened, ended = {}, {}, { p = {}, e = {} }, { p = {}, e = {} }

local function remember(branch, value)
  branches[branch] = value
  remembered[#remembered + 1], remembered[#remembered + 2] = branch, value
end

local function conclude(branch, value)
  remember(branch, value)
  finals[#finals + 1] = branch
end

-- Moves the amount of each entry from one part of its account to another. nil, or why that can't be done exactly: then nothing was.
local function move(entries, first, last, from, to)
  for i = first, last, 2 do
    local account = find(entries[i])
    if account then
      local amount = tonumber(entries[i + 1])
      if account[from] - amount < -MAX or account[to] + amount > MAX then
        return redis.error_reply('INEXACT account ' .. account.id .. ' would exceed 2^53 - 1')
      end
    end
  end
  for i = first, last, 2 do
    local account = find(entries[i])
    if account then
      local amount = tonumber(entries[i + 1])
      account[from], account[to] = account[from] - amount, account[to] + amount
      save(account)
    end
  end
  return nil
end

-- One command, whose words stand in ARGV from `first` to `last`.
local function carry_out(branch, birth, column, first, last)
  -- The branch before any business rule: a repeat of the one that took the last unit is a repeat.
  local found = branches[branch]
  local at = 1
  if found then
    at = AT[string.sub(found, 1, 1)]
  elseif tonumber(birth) <= floor then
    at = 3
  end
  local action, letter = string.sub(column, at, at), string.sub(column, at + 1, at + 1)

  if action == '=' then return DONE[letter] end
  if action == 'V' then return VIOLATION[letter] end
  if action == 'N' then
    local code, detail = string.match(found, '^.(%S+) (.*)$')
    return { 'refused', code or 'aborted', detail or '' }
  end
  if action == 'X' then return EXPIRED end

  if action == 'P' then
    conclude(branch, letter)
    return DONE[letter]
  end

  if action == 'H' or action == 'C' then
    -- The one business rule: all of it must be available.
    local code, detail = nil, nil
    if ARGV[first] == 'malformed' then
      code, detail = ARGV[first + 1], ARGV[first + 2]
    else
      for i = first, last, 2 do
        local account = find(ARGV[i])
        if not account then code, detail = 'unknown_account', ARGV[i] break end
        if tonumber(ARGV[i + 1]) > account.available then code, detail = 'insufficient', ARGV[i] break end
      end
    end
    if code then
      conclude(branch, 'a' .. code .. ' ' .. detail)
      return { 'refused', code, detail }
    end
    local begun, to = 'p', 'held'
    if action == 'C' then begun, to = 'e', 'settled' end
    local inexact = move(ARGV, first, last, 'available', to)
    if inexact then return inexact end
    remember(branch, begun .. table.concat(ARGV, ' ', first, last))
    local set = opened[begun]
    set[#set + 1], set[#set + 2] = birth, branch
    return DONE[begun]
  end

  if action == 'R' then
    -- The decision is to commit and the prepared branch is gone: captured from the command's payload, whatever is available.
    if ARGV[first] == 'malformed' then return VIOLATION.a end
    local made = {}
    for i = first, last, 2 do
      if not find(ARGV[i]) then
        made[#made + 1] = ARGV[i]
        accounts[ARGV[i]] = blank(ARGV[i], '0')
      end
    end
    local inexact = move(ARGV, first, last, 'available', 'settled')
    if inexact then
      -- Nothing comes to be by what was not done.
      for i = 1, #made do accounts[made[i]] = false end
      return inexact
    end
    conclude(branch, 'c')
    return REPAIRED
  end

  -- What is left turns an open branch into a final one: capture, release, restore.
  local final, from, to, open = 'c', 'held', 'settled', 'p'
  if action == 'L' then final, to = 'a', 'available' end
  if action == 'S' then final, from, to, open = 'x', 'settled', 'available', 'e' end
  -- One that stands and was retired has no entries: nothing is given back, but it is remembered as compensated.
  if #found > 1 then
    local entries, inexact = string.sub(found, 2), nil
    if entries == table.concat(ARGV, ' ', first, last) then
      -- As the command says them, most often.
      inexact = move(ARGV, first, last, from, to)
    else
      local words = {}
      for word in string.gmatch(entries, '%S+') do words[#words + 1] = word end
      inexact = move(words, 1, #words, from, to)
    end
    if inexact then return inexact end
    local set = ended[open]
    set[#set + 1] = branch
  end
  conclude(branch, final)
  return DONE[final]
end

-- What the commands are about is read at once.
local starts, ids, named, seen = {}, {}, {}, {}
local at = 2
while ARGV[at] do
  starts[#starts + 1], ids[#ids + 1] = at, ARGV[at + 1]
  local last = at + tonumber(ARGV[at])
  if ARGV[at + 4] ~= 'malformed' then
    for i = at + 4, last, 2 do
      local id = ARGV[i]
      if not seen[id] then
        seen[id] = true
        named[#named + 1] = id
      end
    end
  end
  at = last + 1
end
starts[#starts + 1] = at
fields('branches', ids, branches)
fields('accounts', named, ahead)

-- A command that cannot be carried out does not concern the others.
local replies = {}
for i = 1, #ids do
  local start = starts[i]
  local well, reply = pcall(carry_out, ids[i], ARGV[start + 2], ARGV[start + 3], start + 4, starts[i + 1] - 1)
  replies[i] = well and reply or redis.error_reply('ERR ' .. (type(reply) == 'table' and reply.err or tostring(reply)))
end

write_accounts()
write('branches', remembered)
for letter, set in pairs({ p = 'prepared', e = 'executed' }) do
  local more, less = opened[letter], ended[letter]
  for first = 1, #more, SLICE do call('ZADD', base .. set, unpack(more, first, math.min(#more, first + SLICE - 1))) end
  if less[1] then call('ZREM', base .. set, unpack(less)) end
end
if finals[1] then call('RPUSH', base .. 'finals', unpack(finals)) end
return replies
