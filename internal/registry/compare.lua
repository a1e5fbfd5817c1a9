-- compare: acts on KEYS[1] only if it still has the token ARGV[1]. With ARGV[2]
-- it is given that many ms more, without it is deleted. Answer: 1 or 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('DEL', KEYS[1])
