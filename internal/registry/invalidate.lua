-- invalidate: deletes the marker KEYS[1] of a generation that a reader found
-- damaged (ARGV: topic id, generation), so that the projector builds a new one.
local m = redis.call('HMGET', KEYS[1], 'topic', 'gen')
if m[1] == ARGV[1] and m[2] == ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
