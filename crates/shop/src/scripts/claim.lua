
-- The claim of a transaction that is about to be staged: ORDER VERSION CONNECTION, or 'malformed' CODE DETAIL. What is noted is the order. It was seen over
-- that connection, if that is not 0 (1 to 2047, as recollection.rs numbers them): over another one the version may be that of something else.
local function claim(id, at)
  local order = ARGV[at]
  if order == 'malformed' then return nil, ARGV[at + 1], ARGV[at + 2] end
  local version, state, generation, user, lines, predecessor = find(order)
  if not version then return nil, 'order_not_found', order end
  local letter = string.sub(state, 1, 1)
  if letter == 'p' then return nil, 'order_paid', order end
  if letter == 'c' then return nil, 'order_checking_out', string.sub(state, 2) end
  local seen_over = ARGV[at + 2]
  if seen_over ~= '0' and seen_over ~= text(tonumber(ARGV[1]) % 2047 + 1) then return nil, 'order_changed', order end
  if version ~= ARGV[at + 1] then return nil, 'order_changed', order end
  write(order, version, 'c' .. id, generation, user, lines, predecessor)
  return order
end

-- ORDER: as it is written down, or nil
local function look(at) return shown(ARGV[at]) end
