"""The ground floor: shapes, seeds, devices, images, steps and the algebra of losses."""
