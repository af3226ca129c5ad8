-- POST a file: wrk -s upload.lua URL -- FILE [BYTES_OF_A_CHUNK]
function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local body = file:read("*a")
  file:close()
  wrk.method = "POST"
  if not arguments[2] then
    wrk.body = body
    return
  end
  wrk.headers["Transfer-Encoding"] = "chunked"
  local size, parts = tonumber(arguments[2]), { wrk.format() }
  for start = 1, #body, size do
    local chunk = body:sub(start, start + size - 1)
    parts[#parts + 1] = string.format("%x\r\n", #chunk) .. chunk .. "\r\n"
  end
  parts[#parts + 1] = "0\r\n\r\n"
  local whole = table.concat(parts)
  -- wrk makes a request of its own, with a length, unless this is there.
  wrk.format = function() return whole end
end
