-- apply: brings one bucket of the view from offset `from` to offset `to`.
-- The only script that writes entities. See DESIGN.md, "The script".
--
-- KEYS: marker, set of the generation's tenants, then one hash per name.
-- ARGV: topic id, generation, from, to, seen (when `to` was the log's end, or
--   0), now, age limit (all three in ms), then the names of the hashes, then
--   records of five: index of the hash, entity, offset, state ('' is a
--   tombstone), prev ('' is not judged).
-- Answer: {'ok', complete, indexes of records built on another version}, or one
--   of missing, other, gap, old, damaged, with nothing written.
local marker, tenants = KEYS[1], KEYS[2]
local m = redis.call('HMGET', marker, 'topic', 'gen', 'next', 'target', 'complete', 'at', 'n')
if not m[1] then
  return {'missing'}
end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then
  return {'other'}
end

-- The first write that finds a part of its generation gone ends the generation:
-- filling the gap would make a part of a tenant look like the whole.
local function damaged()
  redis.call('DEL', marker)
  return {'damaged'}
end

local position, target, at, count = tonumber(m[3]), tonumber(m[4]), tonumber(m[6]), tonumber(m[7])
if not (position and target and at and count) then
  return damaged()
end
if position < tonumber(ARGV[3]) then
  return {'gap'}
end
if at < tonumber(ARGV[6]) - tonumber(ARGV[7]) then
  return {'old'}
end
if redis.call('SCARD', tenants) ~= count then
  return damaged()
end
local hashes = #KEYS - 2
for i = 1, hashes do
  if redis.call('SISMEMBER', tenants, ARGV[7 + i]) ~= redis.call('EXISTS', KEYS[2 + i]) then
    return damaged()
  end
end

local answer = {'ok', m[5]}
local index = 0
for i = 8 + hashes, #ARGV, 5 do
  local key, entity, offset, state, prev = KEYS[2 + tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if tonumber(offset) >= position then
    if prev ~= '' then
      local old = redis.call('HGET', key, entity)
      if (old and string.match(old, '^%d+') or '-1') ~= prev then
        answer[#answer + 1] = index
      end
    end
    if state ~= '' then
      redis.call('HSET', key, entity, state, '@v', offset)
    elseif redis.call('HDEL', key, entity) == 1 then
      if redis.call('HLEN', key) == 1 then
        redis.call('DEL', key) -- only @v was left
      else
        redis.call('HSET', key, '@v', offset)
      end
    end
  end
  index = index + 1
end

local change = 0
for i = 1, hashes do
  if redis.call('EXISTS', KEYS[2 + i]) == 1 then
    change = change + redis.call('SADD', tenants, ARGV[7 + i])
  else
    change = change - redis.call('SREM', tenants, ARGV[7 + i])
  end
end
if change ~= 0 then
  redis.call('HINCRBY', marker, 'n', change)
end

local to = tonumber(ARGV[4])
if to > position then
  redis.call('HSET', marker, 'next', ARGV[4])
  position = to
end
if m[5] ~= '1' and position >= target then
  redis.call('HSET', marker, 'complete', '1')
  answer[2] = '1'
end
-- A coarse clock saves a write to every bucket in every idle round.
if tonumber(ARGV[5]) - at > tonumber(ARGV[7]) / 100 then
  redis.call('HSET', marker, 'at', ARGV[5])
end
return answer
