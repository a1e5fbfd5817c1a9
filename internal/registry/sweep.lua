-- sweep: deletes some hashes of a generation that is over.
--
-- KEYS: marker, set of the bucket's generations, set of the generation's
--   tenants, then one hash per name.
-- ARGV: generation, then the names.
-- Answer: how many tenants are left, or -1 if the generation is the current one.
if redis.call('HGET', KEYS[1], 'gen') == ARGV[1] then
  return -1
end
for i = 4, #KEYS do
  redis.call('UNLINK', KEYS[i])
  redis.call('SREM', KEYS[3], ARGV[i - 2])
end
local left = redis.call('SCARD', KEYS[3])
if left == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
end
return left
