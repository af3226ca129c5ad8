-- One request in a hundred is slow.
local count = 0

request = function()
  count = count + 1
  return wrk.format("GET", count % 100 == 0 and "/slow" or "/fast")
end
