-- begin: starts a new generation of one bucket at offset 0, if the marker still
-- is what the caller saw.
--
-- KEYS: marker, set of the bucket's generations.
-- ARGV: topic id and generation as seen ('' if there was no marker), topic id,
--   new generation, target (the log's end), now (ms).
-- Answer: 1, or 0 if the marker was another one.
local m = redis.call('HMGET', KEYS[1], 'topic', 'gen')
if (m[1] or '') ~= ARGV[1] or (m[2] or '') ~= ARGV[2] then
  return 0
end
local complete = '0'
if tonumber(ARGV[5]) == 0 then
  complete = '1'
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'topic', ARGV[3], 'gen', ARGV[4], 'next', '0',
  'target', ARGV[5], 'complete', complete, 'at', ARGV[6], 'n', '0')
redis.call('SADD', KEYS[2], ARGV[4])
return 1
