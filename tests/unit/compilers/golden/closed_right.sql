SELECT * FROM (
SELECT
  "__row",
  sum("__value_units"::HUGEINT) OVER w0 AS "units__sum__1d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 86399999999 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
