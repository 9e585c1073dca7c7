-- What Argo CD shows of an AdapterDeployment. Every message is a sentence of its conditions.

-- A condition, unless it is about an older spec.
local function condition(name)
  for _, each in ipairs((obj.status or {}).conditions or {}) do
    if each.type == name and (each.observedGeneration or 0) >= (obj.metadata.generation or 0) then
      return each
    end
  end
  return {}
end

local ready, stalled, warning = condition("Ready"), condition("Stalled"), condition("Warning")

-- Pods that cannot run, or an adapter that no replica takes.
if stalled.status == "True" then
  return {status = "Degraded", message = stalled.message}
end
if ready.status == "True" then
  -- Such as keys that nobody has: all is served, and nobody may ask.
  if warning.status == "True" then
    return {status = "Healthy", message = ready.message .. " " .. warning.message}
  end
  return {status = "Healthy", message = ready.message}
end
-- spec.replicas is 0.
if ready.reason == "ScaledToZero" then
  return {status = "Suspended", message = ready.message}
end
return {status = "Progressing", message = ready.message or "The operator has not seen this yet."}
