-- What is paused, with since when in ms.
return redis.call('HGETALL', KEY.paused)
