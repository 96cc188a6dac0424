SELECT
  "points"."__row",
  "__result_0",
  "__result_1",
  "__result_2",
  "__result_3"
FROM "points"
LEFT JOIN (
SELECT
  number,
  count("__value_0") AS "__result_0",
  sum("__value_0") AS "__result_2"
FROM (SELECT "__row" AS number, unnest(range("__w0_start", "__w0_end")) AS place FROM "points")
JOIN "line" ON "__place" = place
GROUP BY number
) AS w0 ON w0.number = "points"."__row"
LEFT JOIN (
SELECT
  number,
  count("__value_0") AS "__result_1",
  sum("__value_0") AS "__result_3"
FROM (SELECT "__row" AS number, unnest(range("__w1_start", "__w1_end")) AS place FROM "points")
JOIN "line" ON "__place" = place
GROUP BY number
) AS w1 ON w1.number = "points"."__row"
